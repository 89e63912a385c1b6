"""The call of Ray Tune."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from ray import tune

from tune_rnn.constraints import ParameterCap
from tune_rnn.data import Corpus
from tune_rnn.experiment import Experiment
from tune_rnn.final.planning import final_experiment
from tune_rnn.final.stage import FinalStage
from tune_rnn.report import TrialBudget
from tune_rnn.results.directory import RunDirectory, holder
from tune_rnn.results.recorder import Recorder
from tune_rnn.schedulers import RunAll, Scheduler, build_scheduler
from tune_rnn.search import Evidence, Searcher
from tune_rnn.study.actors import processes_may_be_lost
from tune_rnn.study.adapters import (
    StudyCallback,
    StudyScheduler,
    StudySearcher,
    find_checkpoint,
    name_of,
    replay,
)
from tune_rnn.study.cluster import Room, Slots
from tune_rnn.study.lost import LostTrials
from tune_rnn.study.population import Population
from tune_rnn.study.proposing import Proposer
from tune_rnn.study.trainable import TrialTrainable, shared_arrays
from tune_rnn.study.trials import TrialMaker


def tune_trials(
    experiment: Experiment,
    corpus: Corpus,
    budget: TrialBudget,
    slots: Slots,
    searcher: Searcher,
    recorder: Recorder,
    should_stop: Callable[[], Exception | None],
) -> None:
    """Run trials until the searcher or `should_stop` ends them; what happens goes to the recorder.

    Raises StudyFailed where the searcher proposes nothing any more that constraints allow.
    Ray's own state goes into a directory of this session; nothing of it is read again but the checkpoints.
    """
    scheduler = scheduler_of(experiment, searcher.evidence)
    final = FinalStage(recorder.journal, experiment, slots.count, recorder.deadline)
    for trial in recorder.journal.unfinished:  # before anything is learnt or exported from a damaged one
        find_checkpoint(recorder, trial)
    replay(searcher, scheduler, recorder.journal)
    proposer = Proposer(searcher, recorder, experiment, ParameterCap.of(experiment, corpus))
    population = Population(proposer) if experiment.has_population else None
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1000000"  # else one by one; it is the searcher that says how many
    lost = LostTrials(recorder)
    session = recorder.run.session()
    asked = StudySearcher(proposer, slots.count, final, session, lost, population)

    def resized(count: int) -> None:
        asked.slots = final.slots = count
        recorder.resized(count)

    room = Room(slots, experiment.resources.use, resized)
    tuner = tune.Tuner(
        _trainable(experiment, corpus, budget, slots, recorder.run),
        tune_config=tune.TuneConfig(
            search_alg=TrialMaker(asked),
            scheduler=StudyScheduler(scheduler, searcher, final, lost),
            num_samples=-1,  # the searcher ends the study
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=lambda trial: Path(trial.config["folder"]).name,
        ),
        run_config=_run_config(session, StudyCallback(recorder, final, should_stop, lost, room, population)),
    )
    gc.freeze()  # what has been imported need not be looked through, a fifth of a second, for garbage of trials
    try:
        with processes_may_be_lost():
            tuner.fit()
    finally:
        gc.unfreeze()
    proposer.check()


def _run_config(session: Path, callback: StudyCallback) -> tune.RunConfig:
    """Where Ray keeps its state, and that it neither saves nor retries anything itself."""
    return tune.RunConfig(
        name=session.name,
        storage_path=str(session.parent),
        callbacks=[callback],
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the trainable saves
        failure_config=tune.FailureConfig(max_failures=0),
        verbose=0,
    )


def scheduler_of(experiment: Experiment, evidence: Evidence) -> Scheduler:
    """The study's scheduler; a single trial has nobody to be compared with, and no leg to wait after."""
    if experiment.space.is_empty:
        return RunAll()
    return build_scheduler(experiment.scheduler, experiment.budget.amount, evidence)


def _trainable(experiment: Experiment, corpus: Corpus, budget: TrialBudget, slots: Slots, run: RunDirectory) -> Any:
    """The trainable with what all trials share; the arrays go to the object store, one copy a node."""
    with_data = tune.with_parameters(
        TrialTrainable,
        train=shared_arrays(corpus.train),
        validation=shared_arrays(corpus.validation),
        vocabulary_size=corpus.vocabulary.size,
        documents=experiment.task.documents,
        budget=budget,
        final_budget=TrialBudget.of(final_experiment(experiment)),
        threads=slots.threads,
        device=experiment.resources.device,
        run=run,
        holder=holder(run),
    )
    return tune.with_resources(with_data, partial(_resources, slots))


def _resources(slots: Slots, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial gets, less a little of a processor by which Ray tells the slots apart.

    Else a trial that waits for its slot's process to start would take another slot's as soon as that is free, and Ray
    would end the one that starts, over and over where trials are shorter than a start. Processors, as a cloud's machine
    is only started for what its type is known to have.
    """
    return _resources_of_slot(slots, config["slot"])


@cache
def _resources_of_slot(slots: Slots, slot: int) -> tune.PlacementGroupFactory:
    """One object for each slot: Ray compares them often, and goes through all there is in two that are not the same."""
    less = 1e-4 * (slot % max(1, int(1000 * slots.cpu)))  # Ray counts no finer; it is a tenth at most
    return tune.PlacementGroupFactory([{"CPU": round(slots.cpu - less, 4), "GPU": slots.gpu}])
