"""What a person is told of a trial that has failed, in one line."""

from __future__ import annotations

import re

NO_MEMORY = "The actor died for lack of memory"
"""Begins what we have Ray say of a process that it has killed itself."""


def reason_of(traceback: str) -> str:
    """What a person needs of a traceback: the last line that names an exception, without its module.

    Our own errors are sentences: they need no name.
    """
    if NO_MEMORY in traceback:
        return "its process was killed because the machine had too little memory"
    if re.search(r"^The actor (died(?! because of an error)|is dead)", traceback, re.MULTILINE):
        return "its process was killed, perhaps because the machine had too little memory"
    if re.search(r"The actor \w+ is unavailable", traceback):
        return "its process did not answer for long, perhaps because the machine slept or was overloaded"
    lines = [line for line in traceback.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Failed|Exception|Exit)(: |$)", line)]
    if not named:
        return lines[-1].strip() if lines else "unknown"
    exception, colon, message = named[-1].partition(": ")
    module, _, name = exception.rpartition(".")
    return message if module == "tune_rnn.errors" else f"{name}{colon}{message}"
