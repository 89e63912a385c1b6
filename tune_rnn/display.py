"""What people see while a study runs: a live display on a terminal, plain lines elsewhere.

A display is worth less than the study it shows. A reader that has gone away (`tune-rnn run … | head`), a full
disk below a redirected output or a closed stream never raise here: the study goes on, and its result is in
the run directory.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

TERMINAL_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Progress:
    """The state of a study; a trial that ended counts once: finished, stopped early, diverged or failed."""

    name: str
    planned: int | None = None
    """Trials in the budget, None where only time limits them."""
    finished: int = 0
    """Trials trained to the end of their budget."""
    running: int = 0
    stopped_early: int = 0
    diverged: int = 0
    failed: int = 0
    final_planned: int = 0
    """Trainings of the final stage, which are none of the trials above; 0 until it begins."""
    final_ended: int = 0
    best_loss: float | None = None
    """Lowest validation loss so far, in nats per predicted token."""
    best_trial: int | None = None
    best_metric: str = ""
    """The same in the task's own unit, in words."""
    elapsed_s: float = 0.0
    left_s: float | None = None
    fraction: float = 0.0
    """Part of the study that is done, 0 to 1."""
    message: str = ""

    @property
    def ended(self) -> int:
        return self.finished + self.stopped_early + self.diverged + self.failed


class Display:
    """Shows a running study: `start`, any number of `update` and `say`, then `stop` (in a `finally`)."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        # sys.stdout is None where the process was started without one.
        self._stream = stream or sys.stdout or io.StringIO()
        self._clock = clock
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._shown: Progress | None = None
        self._shown_at = -float("inf")

    def start(self, header: str) -> None:
        """Say the header and open the live display, where there is a terminal."""
        self.say(header)
        if _is_terminal(self._stream):
            self._guard(self._open_live)

    def update(self, progress: Progress) -> None:
        """Show the state: on a terminal at most 4 times a second, else what is new, at most every 10 s."""
        self._progress = progress
        if self._clock() - self._shown_at >= (TERMINAL_INTERVAL_S if self._live else PLAIN_INTERVAL_S):
            self._show()

    def say(self, line: str) -> None:
        """A line of its own, above the live display; also before `start` and after `stop`."""
        text = encodable(line, self._stream)
        self._guard(lambda: self._print(text))

    def stop(self) -> None:
        """Show the last state and give the terminal back. A second call does nothing."""
        self._show()
        live, self._live = self._live, None
        if live:
            self._guard(live.stop)

    def _open_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, force_terminal=True, highlight=False)
        # No refresh thread: an error in it could not be caught, and the study calls update() often enough.
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()
        # rich hides the cursor; visible, it is also there after a kill -9.
        console.show_cursor(True)

    def _show(self) -> None:
        progress, live = self._progress, self._live
        if progress is None or (live is None and not _news(self._shown, progress)):
            return
        self._shown, self._shown_at = progress, self._clock()
        if live:
            self._guard(lambda: live.update(_render(progress, self._stream), refresh=True))
        else:
            self.say(plain_line(progress))

    def _print(self, text: str) -> None:
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(text), soft_wrap=True)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _guard(self, action: Callable[[], object]) -> None:
        """Write, and go on without where the stream does not take it."""
        try:
            action()
        except BrokenPipeError:
            discard_output(self._stream)
        except (OSError, ValueError):  # disk full, terminal gone, closed stream: the next line is tried again
            discard_output(self._stream, for_good=False)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def discard_output(stream: TextIO, for_good: bool = True) -> None:
    """Lead to nowhere what the stream could not write, or Python would fail when it flushes it at exit.

    for_good: nobody reads any more, so the stream leads nowhere from now on.
    """
    with suppress(OSError, ValueError):  # there is no stream that could fail
        file = stream.fileno()
        kept, nowhere = os.dup(file), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, file)
            stream.flush()
            if not for_good:
                os.dup2(kept, file)
        finally:
            os.close(kept)
            os.close(nowhere)


def encodable(text: str, stream: TextIO) -> str:
    """The text with `?` for what the stream's encoding does not have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _news(old: Progress | None, new: Progress) -> bool:
    before = (old.ended, old.final_ended, old.best_loss) if old else (0, 0, None)
    return before != (new.ended, new.final_ended, new.best_loss)


def _render(progress: Progress, stream: TextIO) -> RenderableType:
    """Four or five lines that are cut, never wrapped, in a narrow terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(text: str, style: str = "") -> Text:
        return Text(encodable(text, stream), style=style, no_wrap=True, overflow="ellipsis")

    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(ProgressBar(total=1.0, completed=_fraction(progress)), line(_times(progress)))
    rows: list[RenderableType] = [bar, line(counts(progress)), line(_best(progress), "green")]
    message = [line(progress.message, "dim")] if progress.message else []
    return Group(line(progress.name, "bold"), *rows, *message)


def plain_line(progress: Progress) -> str:
    """The state in one line, as logs and continuous integration see it."""
    parts = [_times(progress), counts(progress), _best(progress), progress.message]
    return f"{progress.name}: " + " | ".join(part for part in parts if part)


def _fraction(progress: Progress) -> float:
    return min(max(progress.fraction, 0.0), 1.0)


def _times(progress: Progress) -> str:
    left = "" if progress.left_s is None else f", about {duration(progress.left_s)} left"
    return f"{int(100 * _fraction(progress)):d} % after {duration(progress.elapsed_s)}{left}"


def counts(progress: Progress) -> str:
    """How many trials there are in each state, in words."""
    trials = plural(progress.ended, "trial")
    if progress.planned is not None:
        trials = f"{progress.ended} of {plural(progress.planned, 'trial')}"
    found = [f"{trials} done"]
    for state in ("running", "stopped_early", "diverged", "failed"):
        if count := getattr(progress, state):
            found.append(f"{count} {state.replace('_', ' ')}")
    if progress.final_planned:
        found.append(f"{progress.final_ended} of {plural(progress.final_planned, 'final training')}")
    return ", ".join(found)


def _best(progress: Progress) -> str:
    if progress.best_loss is None:
        return "no validation loss yet"
    trial = "" if progress.best_trial is None else f" (trial {progress.best_trial})"
    metric = f", {progress.best_metric}" if progress.best_metric else ""
    return f"best {progress.best_loss:.4f} nats{metric}{trial}"


def plural(count: float, noun: str) -> str:
    """1 trial, 2 trials, 0.5 epochs."""
    return f"{count:g} {noun}{'s' * (count != 1)}" if count < 1e6 else f"{count:,.0f} {noun}s"


def duration(seconds: float) -> str:
    """Seconds as people read them: 7 s, 3:07 min, 2:05 h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
