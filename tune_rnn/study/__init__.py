"""Studies on Ray: the only part of tune_rnn that imports it.

`run` and `resume` are loaded on first use: a slot's process, which trains, needs nothing of what starts a study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_rnn.study.study import resume as resume
    from tune_rnn.study.study import run as run

__all__ = ["resume", "run"]


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tune_rnn.study import study

    return getattr(study, name)
