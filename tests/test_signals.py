"""Ctrl-C and SIGTERM: first a wish, then a command."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tune_rnn.signals import PATIENCE_S, interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish(number: signal.Signals) -> None:
    with interrupts() as wanted:
        assert not wanted.is_set()
        os.kill(os.getpid(), number)
        assert wanted.is_set()


def test_a_late_ctrl_c_is_a_command_and_an_impatient_one_or_a_sigterm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("tune_rnn.signals.time.monotonic", lambda: now[0])
    with interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += PATIENCE_S - 1
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 2
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="inside"), interrupts():
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_has_an_event_that_nothing_sets() -> None:
    seen = []

    def work() -> None:
        with interrupts() as wanted:
            seen.append(wanted.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
