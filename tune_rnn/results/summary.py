"""What a run has found: `summary.json`, and the same as an object and as the text that ends the command."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_rnn.config.final_stage import default_candidates
from tune_rnn.config.resolution import default_report_every
from tune_rnn.data import Corpus
from tune_rnn.display import duration, plural
from tune_rnn.final import telling
from tune_rnn.final.findings import findings, section
from tune_rnn.final.planning import planned_trainings
from tune_rnn.final.timing import final_seconds
from tune_rnn.results.best import Sample, best_metrics
from tune_rnn.results.closing import edge_warnings, final_report
from tune_rnn.results.directory import write_atomically
from tune_rnn.results.journal import FINAL, OUTCOMES, SEARCH, Journal, TrialRecord
from tune_rnn.results.provenance import provenance
from tune_rnn.results.recorder import Recorder
from tune_rnn.schema import TrialConfig, flatten

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
        """The best trial's validation metrics: `validation_loss` in nats, `bits_per_character` or `perplexity`, …"""
        return dict(self.summary["best"]["metrics"])


def write_summary(recorder: Recorder, corpus: Corpus, status: str) -> dict[str, Any]:
    """Write `summary.json` and return its content."""
    summary = _summarise(recorder, corpus, status, recorder.journal.best_trial)
    write_atomically(recorder.run.summary, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def _summarise(recorder: Recorder, corpus: Corpus, status: str, best: TrialRecord | None) -> dict[str, Any]:
    journal, experiment = recorder.journal, recorder.experiment
    return {
        "name": recorder.run.path.name,
        "status": status,
        "metric": METRIC,
        "best": None if best is None else _best(best),
        "trials": {**_counts(journal, SEARCH), "refused": len(journal.refused)},
        "time": _time(journal),
        "tokens": sum(trial.tokens for trial in journal.trials.values()),
        "seed": experiment.search.seed,
        **({"warm_start": [run.to_dict() for run in recorder.earlier]} if recorder.earlier else {}),
        "provenance": provenance(corpus, recorder.plan.device),
    } | _final(recorder)


def _best(trial: TrialRecord) -> dict[str, Any]:
    """The best model: which trial has it, its configuration, and what its weights were trained with before, by whom."""
    stretch = trial.best_stretch
    history = [
        {"trial": one.trial, "until": trial.reports[one.until - 1].spent, "values": one.assignment}
        for one in trial.earlier
        if one.until < stretch.until
    ]
    found = {"trial": trial.number, "config": stretch.config, "metrics": best_metrics(trial)}
    return found | ({"history": history} if history else {})


def _final(recorder: Recorder) -> dict[str, Any]:
    journal, experiment = recorder.journal, recorder.experiment
    found = findings(journal, experiment)
    return {"final": section(found, journal, experiment) | {"trainings": _counts(journal, FINAL)}} if found else {}


def _time(journal: Journal) -> dict[str, float]:
    """Times of all sessions; where they had different slots, `slots` is the mean over time."""
    wall_s, training_s = round(journal.wall_s, 3), round(journal.training_s, 3)
    different = len({span.slots for span in journal.sessions}) > 1
    slots = round(journal.slot_s / wall_s, 4) if different else journal.sessions[-1].slots
    useful_fraction = round(training_s / (slots * wall_s), 4)
    return {"wall_s": wall_s, "training_s": training_s, "slots": slots, "useful_fraction": useful_fraction}


def _counts(journal: Journal, stage: str) -> dict[str, int]:
    found = Counter(trial.outcome for trial in journal.in_stage(stage))
    return {"total": found.total()} | {outcome: found[outcome] for outcome in OUTCOMES} | {"unfinished": found[""]}


def _unfinished(recorder: Recorder) -> list[str]:
    """What to do about trials that the study's hours did not suffice for."""
    count = sum(trial.outcome == "" for trial in recorder.journal.in_stage(SEARCH))
    hours = recorder.experiment.budget.hours
    if count == 0 or hours is None:
        return []
    command = f"tune-rnn resume {recorder.run.place} budget.hours={2 * hours:g}"
    return [f"{plural(count, 'trial')} had not ended when the time was over: `{command}` goes on with them"]


def _failed(recorder: Recorder) -> list[str]:
    """How many trials failed, and where to read why; a resumed study goes on with them, if it has time."""
    journal, hours = recorder.journal, recorder.experiment.budget.hours
    failed = [trial.number for trial in journal.trials.values() if trial.outcome == "failed"]
    if not failed:
        return []
    count, of = len(failed), plural(len(journal.trials), "trial")
    more = "" if hours is None else f" budget.hours={2 * hours:g}"
    command = f"`tune-rnn resume {recorder.run.place}{more}` tries {'it' if count == 1 else 'them'} again"
    return [f"{count} of {of} failed (see {recorder.run.trial(failed[0]) / 'error.txt'}): {command}"]


def _one_seed(recorder: Recorder) -> list[str]:
    """What the lowest of many losses is worth, and how to learn more, where there was no final stage."""
    experiment, journal = recorder.experiment, recorder.journal
    trials = len(journal.in_stage(SEARCH))
    searched_once = experiment.search.seeds == 1 and trials > 1 and not experiment.has_population
    if experiment.final is not None or journal.in_stage(FINAL) or not searched_once:
        return []
    candidates = default_candidates(trials)
    with_final = experiment.replace("final.top_k", candidates)
    again, _ = planned_trainings(with_final)
    seconds = final_seconds(journal, with_final, recorder.plan.slots)
    hours = experiment.budget.hours
    more = "" if hours is None else f" budget.hours={math.ceil(100 * (hours + seconds / 1800)) / 100:.2f}"
    command = f"`tune-rnn resume {recorder.run.place} final.top_k={candidates}{more}`"
    size = f"{plural(again, 'training')}, about {duration(seconds)}"
    return [f"the lowest of {trials} losses of one seed each is a lucky one: {command} trains the best again ({size})"]


def _changed(best: TrialRecord) -> list[str]:
    """That the best configuration is the last of several, which does not do by itself what they did one by one."""
    count = len(_best(best).get("history", []))
    if count == 0:
        return []
    before = plural(count, "other configuration")
    return [f"the best model was trained with {before} before this one: summary.json has them, under best.history"]


def _refused(recorder: Recorder) -> list[str]:
    """How many configurations were above the cap."""
    count, limit = len(recorder.journal.refused), recorder.experiment.constraints.parameters
    if count == 0 or limit is None:
        return []
    were = f"{plural(count, 'proposal')} {'was' if count == 1 else 'were'}"
    return [f"{were} not trained, as models may have no more parameters than constraints.parameters, {limit:,}"]


def closing_text(recorder: Recorder, best: TrialRecord, sample: Sample) -> str:
    """The text that ends the command: what was found, and where it is."""
    experiment = recorder.experiment
    stretch = best.best_stretch
    assignment = stretch.assignment
    metrics = best_metrics(best)
    defaults = TrialConfig().flat() | {"training.report_every": default_report_every(experiment.budget)}
    run, found = recorder.run, findings(recorder.journal, experiment)
    return final_report(
        replace(recorder.progress(), elapsed_s=recorder.journal.wall_s),
        configuration={
            key: value
            for key, value in flatten(stretch.config).items()
            if key in assignment or value not in (None, defaults.get(key))
        },
        searched=list(assignment),
        metrics={name: metrics[name] for name in (METRIC, recorder.kind.metric)},
        final=[] if found is None else telling.lines(found, recorder.journal, experiment, run.path),
        sample=sample.text,
        warnings=[
            *edge_warnings(assignment, experiment.space.distributions(assignment.get("one_of")), experiment.allows),
            *_changed(best),
            *_failed(recorder),
            *_unfinished(recorder),
            *_refused(recorder),
            *_one_seed(recorder),
        ],
        places={"run": run.place, "best model": run.best, "summary": run.summary},
        board=run.path,
        again=best.of if best.stage == FINAL else None,
    )
