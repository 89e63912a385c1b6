"""What `best/` holds while a study runs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tiny

from tune_rnn.checkpoint import save
from tune_rnn.data import Corpus
from tune_rnn.errors import StudyFailed
from tune_rnn.report import CHECKPOINT
from tune_rnn.results.best import BestKeeper
from tune_rnn.results.record import TrialRecord

pytestmark = pytest.mark.usefixtures("one_thread")


def a_saved_trial(directory: Path) -> TrialRecord:
    training = tiny.training(epochs=(1.0, 2.0))
    reports = training.run()
    trial = TrialRecord(3, 0, {}, training.config.to_dict(), [next(reports)], checkpoint_reports=1)
    assert trial.reports[0].improved
    save(training, directory)
    return trial


def a_keeper(directory: Path) -> BestKeeper:
    corpus = cast(Corpus, SimpleNamespace(name="tiny", sha256="", vocabulary=tiny.VOCABULARY))
    return BestKeeper(directory, corpus, 1, "cpu")


def test_a_trial_that_goes_on_meanwhile_does_not_change_what_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = a_saved_trial(tmp_path)
    keeper, may_begin = a_keeper(tmp_path / "best"), threading.Event()
    export = keeper._export

    def later(*what: Any) -> Any:
        may_begin.wait()
        return export(*what)

    monkeypatch.setattr(keeper, "_export", later)
    keeper.offer(trial, tmp_path / CHECKPOINT)
    first, wider = trial.reports[0], tiny.config(model={"hidden_size": 16})
    trial.reports.append(replace(first, spent=2.0, tokens=2 * first.tokens, validation_loss=0.1, improved=True))
    trial.checkpoint_reports, trial.config = 2, wider.to_dict()
    may_begin.set()
    assert keeper._last is not None
    sample = keeper._last.result()
    keeper.close()
    assert (sample.trial, sample.tokens) == (3, first.tokens)
    config = json.loads((tmp_path / "best" / "config.json").read_text("utf-8"))
    assert config["metrics"]["validation_loss"] == first.validation_loss
    assert config["config"]["model"]["hidden_size"] == 8


def test_a_model_whose_checkpoint_is_lost_is_still_there_once_it_has_been_exported(tmp_path: Path) -> None:
    trial, file = a_saved_trial(tmp_path), tmp_path / CHECKPOINT
    first = a_keeper(tmp_path / "best")
    exported = first.finish(trial, file)
    first.close()
    file.write_bytes(file.read_bytes()[:-100])
    later = a_keeper(tmp_path / "best")
    assert later.finish(trial, file) == exported
    trial.reports[0] = replace(trial.reports[0], validation_loss=0.1)
    with pytest.raises(
        StudyFailed,
        match=r"The checkpoint of the best trial, 3, is missing or damaged: .*train --from .*:3` trains it again",
    ):
        a_keeper(tmp_path / "best").finish(trial, file)
    with pytest.raises(StudyFailed, match="missing or damaged"):
        a_keeper(tmp_path / "nothing").finish(trial, tmp_path / "elsewhere" / CHECKPOINT)
