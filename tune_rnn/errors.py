"""Everything tune_rnn raises on purpose.

TuneRnnError
├── InputError           what the user gave is wrong: exit status 2, nothing was started
├── StudyFailed          the study ran and has no result: exit status 1
├── StudyInterrupted     Ctrl-C, SIGTERM: exit status 130, `tune-rnn resume` goes on
└── TrialFailed          one trial cannot go on; the study does
"""

from __future__ import annotations

from typing import Any

_NOT_GIVEN: Any = object()


class TuneRnnError(Exception):
    """Base of all errors raised on purpose; `exit_status` is what the command line returns."""

    exit_status = 1


class InputError(TuneRnnError):
    """The user's input is wrong.

    `where` is a dotted key or a file, `value` what stood there, `rule` what must hold, `remedy` what to do.
    They are joined to one line: ``model.layers: 0: must be at least 1. Write layers: 1 or more.``
    """

    exit_status = 2

    def __init__(self, where: str, rule: str, remedy: str = "", value: Any = _NOT_GIVEN) -> None:
        self.where, self.rule, self.remedy = where, rule, remedy
        shown = "" if value is _NOT_GIVEN else f" {_shorten(value)}:"
        end = "" if rule.endswith((".", "?")) else "."
        super().__init__(f"{where}:{shown} {rule}{end}" + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.where, self.rule, self.remedy)


def _shorten(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rebuild(cls: type[InputError], text: str, where: str, rule: str, remedy: str) -> InputError:
    """Unpickle an InputError (Ray sends errors between processes) without formatting it a second time."""
    error = cls.__new__(cls)
    Exception.__init__(error, text)
    error.where, error.rule, error.remedy = where, rule, remedy
    return error


class StudyFailed(TuneRnnError):
    """The study ended without a model: no trial has a result, or what it needs is lost or full."""


class StudyInterrupted(TuneRnnError):
    """The user or the system asked the study to stop; what was done is kept and can be resumed."""

    exit_status = 130


class TrialFailed(TuneRnnError):
    """One trial cannot go on (no device, disk full, out of memory); the message is its reason."""


def is_disk_full(error: BaseException | str) -> bool:
    """Whether an error, or its text, is about a full disk, however deep other libraries have wrapped it."""
    return "no space left" in str(error).lower()
