"""How a run ends, well or not: best model exported, summary written, and one message for whoever waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tune_rnn.ablation import is_ablation
from tune_rnn.advice import notes
from tune_rnn.data import Corpus
from tune_rnn.errors import StudyFailed, StudyInterrupted, is_disk_full
from tune_rnn.results.recorder import Recorder
from tune_rnn.results.summary import Result, closing_text, write_summary


def carry_out(work: Callable[[], str], recorder: Recorder, corpus: Corpus, header: str) -> Result:
    """Do the work of a run (it returns the status) below a display, export, summarise, return what was found.

    Raises StudyInterrupted, and StudyFailed where the disk is full or no trial has a result; in each case the
    summary is written where that is possible.
    """
    command = "ablate" if is_ablation(recorder.experiment) else "resume"
    go_on = f"`tune-rnn {command} {recorder.run.place}` goes on with it."
    result = None
    for note in notes(recorder.experiment, corpus):
        recorder.display.say(f"Note: {note}.")
    recorder.display.start(header)
    try:
        status = work()
        result = _conclude(recorder, corpus, status)
    except OSError as error:
        if not is_disk_full(error):
            raise
        status = "failed"
    except StudyFailed:  # what was trained is kept
        _conclude(recorder, corpus, "failed")
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, while trials were stopped or the best model was exported
        status = "interrupted"
        _summarise(recorder, corpus, status)
    finally:
        recorder.display.stop()
    if status == "interrupted":
        raise StudyInterrupted(f"Interrupted. {go_on}")
    if status == "failed" or (result is None and recorder.journal.best_trial):
        raise StudyFailed(f"The disk is full. Free some space; then {go_on}")
    if result is None:
        raise StudyFailed(_why_nothing(recorder))
    return result


def _conclude(recorder: Recorder, corpus: Corpus, status: str) -> Result | None:
    """Export the best model and write the summary; None where no trial has a loss, or the disk has no room for it."""
    try:
        found = recorder.finish()
    except StudyFailed:  # the best trial's checkpoint is lost
        _summarise(recorder, corpus, "failed")
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        found, status = None, "failed"
    if found is None and status == "completed":
        status = "failed"
    summary = _summarise(recorder, corpus, status)
    return Result(recorder.run.path, summary, closing_text(recorder, *found)) if found else None


def _summarise(recorder: Recorder, corpus: Corpus, status: str) -> dict[str, Any]:
    recorder.journal.close_session()
    return write_summary(recorder, corpus, status)


def _why_nothing(recorder: Recorder) -> str:
    """The message of a run without a result."""
    trials = recorder.journal.trials.values()
    failed = [trial for trial in trials if trial.outcome == "failed"]
    if failed:
        file = recorder.run.trial(failed[0].number) / "error.txt"
        return f"No trial gave a result; {len(failed)} failed, the first with: {failed[0].reason} (see {file})"
    diverged = [trial for trial in trials if trial.outcome == "diverged"]
    if diverged:
        who = "The model" if len(diverged) == 1 else f"All {len(diverged)} models"
        remedy = "Lower training.learning_rate, or set regularizers.clip_norm: 1."
        return f"{who} diverged: {diverged[0].reason}. {remedy}"
    return "The time was over before any trial reported. Raise budget.hours, or lower training.report_every."
