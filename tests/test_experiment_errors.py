"""Every mistake in an experiment, and the message it gets: dotted key, value, rule, remedy."""

from __future__ import annotations

ONE_OF = "one_of: {sgd: {training: {optimizer: sgd}}, adam: {model: {layers: {int: [1, 2]}}}}"
MISTAKES: list[tuple[str, str]] = [  # lines added to a right file, the whole message
]
