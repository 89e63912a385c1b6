"""What a run has found: `summary.json`, and the same as an object and as the text that ends the command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.data import Corpus
from tune_rnn.errors import is_disk_full
from tune_rnn.results.best import Sample, best_metrics
from tune_rnn.results.closing import edge_warnings, final_report
from tune_rnn.results.directory import write_atomically
from tune_rnn.results.journal import OUTCOMES, Journal, TrialRecord
from tune_rnn.results.provenance import provenance
from tune_rnn.results.recorder import Recorder
from tune_rnn.schema import flatten

METRIC = "validation_loss"


@dataclass(frozen=True)
class Result:
    """A finished run: `path` of its directory, its `summary` (the content of summary.json), and the closing `text`."""

    path: Path
    summary: dict[str, Any]
    text: str

    @property
    def best_config(self) -> dict[str, Any]:
        """The best trial's configuration, nested as in an experiment file."""
        return dict(self.summary["best"]["config"])

    @property
    def best_metrics(self) -> dict[str, Any]:
        """The best trial's validation metrics: `validation_loss` in nats, `bits_per_character`, `tokens`, …"""
        return dict(self.summary["best"]["metrics"])


def conclude(recorder: Recorder, corpus: Corpus, status: str, wall_s: float) -> Result | None:
    """Export the best model and write the summary; None where no trial has a loss, or the disk has no room for it."""
    try:
        found = recorder.finish()
    except Exception as error:
        if not is_disk_full(error):
            raise
        found, status = None, "failed"
    if found is None and status == "completed":
        status = "failed"
    summary = summarise(recorder, corpus, status, wall_s, recorder.journal.best_trial)
    write_atomically(recorder.run.summary, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if found is None:
        return None
    return Result(recorder.run.path, summary, _closing_text(recorder, *found))


def summarise(
    recorder: Recorder, corpus: Corpus, status: str, wall_s: float, best: TrialRecord | None
) -> dict[str, Any]:
    """The content of summary.json; `wall_s` is the running time of all sessions."""
    journal, experiment = recorder.journal, recorder.experiment
    training_s = journal.training_s
    return {
        "name": recorder.run.path.name,
        "status": status,
        "metric": METRIC,
        "best": None if best is None else {"trial": best.number, "config": best.config, "metrics": best_metrics(best)},
        "trials": _counts(journal),
        "time": {
            "wall_s": round(wall_s, 3),
            "training_s": round(training_s, 3),
            "slots": recorder.plan.slots,
            "useful_fraction": round(training_s / (recorder.plan.slots * wall_s), 4),
        },
        "tokens": sum(trial.reports[-1].tokens for trial in journal.trials.values() if trial.reports),
        "seed": experiment.search.seed,
        "provenance": provenance(corpus),
    }


def _counts(journal: Journal) -> dict[str, int]:
    counts = {outcome: journal.count(outcome) for outcome in OUTCOMES}
    return {"total": len(journal.trials)} | counts | {"unfinished": journal.count("")}


def _closing_text(recorder: Recorder, best: TrialRecord, sample: Sample) -> str:
    experiment = recorder.experiment
    assignment = best.proposal.assignment
    metrics = best_metrics(best)
    run = recorder.run
    return final_report(
        recorder.progress(),
        configuration={key: value for key, value in flatten(best.config).items() if value is not None},
        searched=list(assignment),
        metrics={name: metrics[name] for name in (METRIC, "bits_per_character")},
        sample=sample.text,
        warnings=edge_warnings(assignment, experiment.space.distributions(assignment.get("one_of")), experiment.allows),
        places={"run": run.path, "best model": run.best, "summary": run.summary},
        board=run.path,
    )
