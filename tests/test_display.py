"""The display on a terminal, in a log, and where nobody takes what it writes; the final report."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from tune_rnn.display import Display, Progress, duration, plain_line

START = Progress("char-lm", planned=32, running=2, left_s=125)
LATER = replace(
    START,
    finished=3,
    stopped_early=9,
    diverged=1,
    failed=1,
    best_loss=1.5,
    best_trial=7,
    best_metric="2.1640 bits per character",
    elapsed_s=75.2,
    left_s=90,
    fraction=0.437,
)


class Clock:
    """Time that passes only when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_plain_line_says_all_in_one_line() -> None:
    assert plain_line(replace(LATER, message="trial 14 starts")) == (
        "char-lm: 43 % after 1:15 min, about 1:30 min left | "
        "14 of 32 trials done, 2 running, 9 stopped early, 1 diverged, 1 failed | "
        "best 1.5000 nats, 2.1640 bits per character (trial 7) | trial 14 starts"
    )


def test_plain_line_leaves_out_what_is_not_known() -> None:
    line = plain_line(Progress("series", running=1, best_loss=0.25))
    assert line == "series: 0 % after 0 s | 0 trials done, 1 running | best 0.2500 nats"


def test_plain_lines_come_with_news_and_not_too_often() -> None:
    stream, clock = io.StringIO(), Clock()
    display = Display(stream, clock)
    display.start("header")

    def lines_after(progress: Progress, now_s: float) -> list[str]:
        clock.now_s = now_s
        display.update(progress)
        return stream.getvalue().splitlines()

    assert lines_after(START, 0) == ["header"], "nothing has ended yet"
    assert lines_after(LATER, 1) == ["header", plain_line(LATER)]
    assert len(lines_after(replace(LATER, fraction=0.5, elapsed_s=99), 20)) == 2, "only time has passed"
    assert len(lines_after(replace(LATER, finished=4), 21)) == 3
    assert len(lines_after(replace(LATER, finished=5), 22)) == 3, "too soon"
    last = replace(LATER, finished=6, best_loss=1.4)
    assert len(lines_after(last, 23)) == 3, "too soon"
    display.stop()
    display.stop()
    assert stream.getvalue().splitlines()[3:] == [plain_line(last)], "the last state is always said"


def test_say_works_before_start_and_after_stop() -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.say("before")
    display.start("header")
    display.stop()
    display.say("after")
    assert stream.getvalue() == "before\nheader\nafter\n"


class Terminal:
    """A pseudo-terminal of 80 columns and what was written to it."""

    def __init__(self) -> None:
        self._reader, writer = os.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stream: TextIO = os.fdopen(writer, "w", encoding="utf-8")

    def read(self) -> str:
        """All that was written since the last call."""
        print(end="<end>", file=self.stream, flush=True)
        output = b""
        while not output.endswith(b"<end>"):
            output += os.read(self._reader, 10_000)
        return output.decode().removesuffix("<end>")

    def close(self) -> None:
        self.stream.close()
        os.close(self._reader)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Terminal()
    yield terminal
    terminal.close()


def _visible(output: str) -> list[str]:
    """The lines without control sequences; a line that is begun anew counts as another one."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r\n", "\n").replace("\r", "\n")
    return [line.rstrip() for line in plain.splitlines()]


def test_the_live_display_fits_80_columns(terminal: Terminal) -> None:
    display = Display(terminal.stream, Clock())
    display.start("header")
    terminal.read()
    display.update(replace(LATER, name="name " * 30, planned=123_456, message="message " * 20))
    lines = _visible(terminal.read())
    display.stop()
    lines = [line for line in lines if line]
    assert [len(line) <= 80 for line in lines] == [True] * 5
    assert lines[1].endswith("43 % after 1:15 min, about 1:30 min left")
    assert lines[2].startswith("14 of 123456 trials done, 2 running, 9 stopped early")
    assert lines[3] == "best 1.5000 nats, 2.1640 bits per character (trial 7)"


def test_the_live_display_is_throttled(terminal: Terminal) -> None:
    clock = Clock()
    display = Display(terminal.stream, clock)
    display.start("header")
    shown = []
    for step in range(100):
        clock.now_s = step / 100
        display.update(replace(LATER, finished=step))
        shown.append(display._shown)
    display.stop()
    assert len(set(shown)) == 4, "in one second"
    assert "110 of 32 trials done" in terminal.read(), "the last state is always shown"


def test_lines_come_above_the_live_display_and_the_cursor_stays(terminal: Terminal) -> None:
    display = Display(terminal.stream, Clock())
    display.start("header")
    display.update(LATER)
    display.say("[bold]trial 3 failed[/bold]: see error.txt")
    display.stop()
    output = terminal.read()
    lines = _visible(output)
    last_title = max(index for index, line in enumerate(lines) if line == "char-lm")
    assert "[bold]trial 3 failed[/bold]: see error.txt" in lines[:last_title], "as it is, no markup"
    for hidden in re.finditer(r"\x1b\[\?25l", output):
        assert output.find("\x1b[?25h", hidden.end()) > 0


def test_what_others_print_while_it_is_live_does_not_tear_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    display = Display(clock=Clock())
    display.start("header")
    display.update(LATER)
    print("from elsewhere")
    display.stop()
    assert sys.stdout is terminal.stream
    lines = _visible(terminal.read())
    assert "char-lm" in lines[lines.index("from elsewhere") + 1 :]


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    display = Display(terminal.stream, Clock())
    display.start("header")
    display.update(LATER)
    display.stop()
    assert terminal.read().splitlines() == ["header", plain_line(LATER)]


STUDY = """
from tune_rnn.display import Display, Progress
display = Display()
display.start("header")
for finished in range(20_000):
    display.say("line")
    display.update(Progress("name", finished=finished))
display.stop()
display.say("report" * {length})
open({done!r}, "w").close()
"""


@pytest.mark.parametrize("redirection", ["| head -1", "> /dev/full", ">&-", "| cat > /dev/null"])
@pytest.mark.parametrize("length", [1, 5000])
def test_a_study_ends_well_whatever_becomes_of_its_output(tmp_path: Path, redirection: str, length: int) -> None:
    done = tmp_path / "done"
    code = STUDY.format(done=str(done), length=length)
    command = f'set -o pipefail; "$0" -c "$1" {redirection}'
    result = subprocess.run(["bash", "-c", command, sys.executable, code], capture_output=True, text=True, timeout=60)
    assert done.exists()
    assert (result.returncode, result.stderr) == (0, "")


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.start("header")
    stream.close()
    display.update(LATER)
    display.say("line")
    display.stop()


def test_a_stream_without_the_signs_gets_question_marks() -> None:
    raw = io.BytesIO()
    display = Display(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    display.say("größer: 語")
    assert raw.getvalue() == b"gr??er: ?\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (3599, "59:59 min"),
        (7500, "2:05 h"),
        (360_000, "100:00 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_importing_the_module_imports_no_rich() -> None:
    code = "import sys, tune_rnn.display; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
