"""Ctrl-C and SIGTERM: as a wish to stop, or as an exception in the midst of things."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PATIENCE_S = 10.0
"""For so long after the first Ctrl-C, more of them are taken for impatience: stopping is under way."""


class Interrupt(threading.Event):
    """Set when somebody wishes the work to stop; `answer`, if not empty, is what they are told at once."""

    answer = ""


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Yield an event that Ctrl-C or SIGTERM sets. Ctrl-C raises KeyboardInterrupt `PATIENCE_S` after that.

    Outside the main thread, where Python does not let handlers be set, the event stays unset.
    """
    event, since = Interrupt(), 0.0

    def handle(signal_number: int, frame: object) -> None:
        nonlocal since
        if not event.is_set():
            since = time.monotonic()
            event.set()
            with suppress(OSError):  # not print: the signal may have come in the midst of one
                os.write(2, event.answer.encode())
        elif signal_number == signal.SIGINT and time.monotonic() - since > PATIENCE_S:
            raise KeyboardInterrupt

    with _handlers(handle, signal.SIGINT, signal.SIGTERM):
        yield event


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt wherever the main thread is; without effect in another thread."""
    with _handlers(signal.default_int_handler, signal.SIGTERM):
        yield


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back the handlers that what runs inside replaces: `ray.init` sets one for SIGTERM that ends the process."""
    with _handlers(None, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def _handlers(handler: Callable[[int, Any], object] | None, *numbers: signal.Signals) -> Iterator[None]:
    """Set a handler (None: leave what is there) for some signals, where this thread may; put the old ones back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers if handler else ():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
