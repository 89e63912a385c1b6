"""Our searcher and scheduler behind Ray's, and their state in a resumed study; no Ray cluster is started."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
import tiny
from ray.tune.execution import tune_controller

from tune_rnn import space
from tune_rnn.checkpoint_folder import Saved, write
from tune_rnn.constraints import REFUSALS, ParameterCap
from tune_rnn.errors import StudyFailed
from tune_rnn.experiment import Experiment
from tune_rnn.final.stage import FinalStage
from tune_rnn.report import Report
from tune_rnn.results.journal import Journal
from tune_rnn.schedulers import Asha, RunAll
from tune_rnn.schema import Search
from tune_rnn.search import Searcher, build_searcher
from tune_rnn.space import Space
from tune_rnn.study import adapters, lost
from tune_rnn.study.actors import processes_may_be_lost
from tune_rnn.study.adapters import StudyCallback, StudyScheduler, StudySearcher, replay
from tune_rnn.study.lost import ALLOWED, GONE, LostTrials
from tune_rnn.study.proposing import Proposer
from tune_rnn.study.reasons import reason_of
from tune_rnn.study.trainable import CHECKPOINT, PLACE, REPORT, SCORE


def report(spent: float, loss: float | None, finished: str = "") -> Report:
    return Report(
        spent=spent,
        tokens=int(spent),
        step=int(spent),
        train_loss=loss,
        validation_loss=loss,
        best_loss=loss,
        learning_rate=0.1,
        gradient_norm=1.0,
        tokens_per_second=1.0,
        training_s=1.0,
        improved=loss is not None,
        finished=finished,
    )


def a_searcher() -> Searcher:
    return build_searcher(Search(algorithm="hyperopt"), Space({"x": space.uniform(0, 1)}, {}))


def test_a_diverged_trial_is_stopped_and_asks_nobody() -> None:
    rules, searcher = Asha([1.0], 3.0), a_searcher()
    searcher.began(0, {"x": 0.5})
    scheduler = StudyScheduler(rules, searcher)
    trial = SimpleNamespace(config={"number": 0})
    assert scheduler.on_trial_result(None, trial, {"spent": 1.0, SCORE: math.inf}) == "STOP"
    assert scheduler.on_trial_result(None, trial, {"spent": 1.0, SCORE: 2.0}) == "CONTINUE"
    assert rules.rungs[0][1].scores == [2.0]
    assert searcher.evidence.trials[0].scores == [2.0], "the searcher hears of it first"


class Recorded:
    """What the study's searcher asks of a recorder: a journal, and a place for checkpoints."""

    def __init__(self, path: Path) -> None:
        self.run = SimpleNamespace(path=path, place=str(path))
        self.journal = Journal(path / "trials.jsonl")
        self.journal.open_session("sha", 2, 0.0)
        self.running = set[int]()

    def proposed(self, *what: Any) -> None:
        self.journal.propose(*what)

    def refused(self, number: int, assignment: dict[str, Any]) -> None:
        self.journal.refuse(number, assignment)

    def lost(self, number: int, reason: str, waits: bool) -> None:
        self.running.discard(number)
        self.journal.lose(number, reason)

    def placed(self, number: int, machine: str, gpus: list[int]) -> None:
        self.journal.place(number, machine, gpus)

    def tick(self) -> None: ...

    def reported(self, number: int, report: Report) -> None:
        self.journal.report(number, report)

    def checkpointed(self, number: int, path: Path) -> None:
        self.journal.checkpoint(number, str(path.relative_to(self.run.path)))

    def returned(self, number: int, spent: float) -> None:
        self.journal.return_to(number, spent)

    def save(self, number: int, spent: float, content: bytes) -> None:
        """A report, and a checkpoint with this content."""
        directory = f"{number}/{spent:g}"
        write(self.run.path / directory, content)
        self.journal.report(number, report(spent, 1.0))
        self.journal.checkpoint(number, directory)

    def end(self, number: int, loss: float) -> None:
        self.journal.report(number, report(1.0, loss, "budget"))
        self.journal.checkpoint(number, "somewhere")
        self.journal.end(number, "completed", "")


def a_final_study(
    path: Path, cap: ParameterCap | None = None, **budget: Any
) -> tuple[StudySearcher, Recorded, FinalStage]:
    """Three trials on two slots, then the best one with two new seeds."""
    study = Experiment(
        name="study",
        model={"hidden_size": {"int": [1, 100]}},
        budget={"epochs": 1, "trials": 3} | budget,
        search={"algorithm": "random"},
        final={"top_k": 1, "seeds": 2},
    )
    recorded = Recorded(path)
    final = FinalStage(recorded.journal, study, 2, None)
    searcher = build_searcher(study.search, study.space)
    proposer = Proposer(searcher, recorded, study, cap or ParameterCap(None, 50))  # type: ignore[arg-type]
    waiting = LostTrials(recorded)  # type: ignore[arg-type]
    return StudySearcher(proposer, 2, final, path, waiting), recorded, final


def test_the_final_stage_waits_for_the_last_trial_of_the_search_and_tells_the_searcher_nothing(tmp_path: Path) -> None:
    asked, recorded, _ = a_final_study(tmp_path)
    handed: list[Any] = [asked.suggest("a"), asked.suggest("b"), asked.suggest("c")]
    assert [one and one["stage"] for one in handed] == ["search", "search", None], "both slots are taken"
    for identity, number in (("a", 0), ("b", 1)):
        recorded.end(number, 2.0 - number)
        asked.on_trial_complete(identity, {"spent": 1.0, SCORE: 2.0 - number})
    third: Any = asked.suggest("c")
    assert (third["number"], third["stage"]) == (2, "search")
    assert asked.suggest("d") is None, "the third trial may be the best"
    recorded.end(2, 0.5)
    asked.on_trial_complete("c", {"spent": 1.0, SCORE: 0.5})
    again: list[Any] = [asked.suggest("d"), asked.suggest("e")]
    assert [(one["number"], one["stage"], one["trial"]) for one in again] == [
        (3, "final", third["trial"]),
        (4, "final", third["trial"]),
    ]
    known = dict(asked.ours.evidence.trials)
    asked.on_trial_result("d", {"spent": 0.5, SCORE: 0.1})
    asked.on_trial_complete("d", {"spent": 1.0, SCORE: 0.1})
    assert asked.suggest("f") is None, "the other one may be lost, and go on"
    asked.on_trial_complete("e", {"spent": 1.0, SCORE: 0.2})
    assert asked.ours.evidence.trials == known
    assert list(known) == [0, 1, 2]
    assert asked.suggest("f") == "FINISHED"


def test_a_search_that_goes_on_after_a_final_stage_counts_its_own_trials_alone(tmp_path: Path) -> None:
    """Whether a final stage came in between or not, a larger budget brings the same trials with the same seeds."""
    seen = []
    for name, in_between in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        asked, recorded, _ = a_final_study(tmp_path / name)
        for trial in "abc":
            searched: Any = asked.suggest(trial)
            recorded.end(searched["number"], 1.0)
            asked.on_trial_complete(trial, {"spent": 1.0, SCORE: 1.0})
        if in_between:
            again: list[Any] = [asked.suggest("d"), asked.suggest("e")]
            recorded.end(again[0]["number"], 0.1)  # the other one has not ended
        larger, recorded, _ = a_final_study(tmp_path / name, trials=5)
        replay(larger.ours, RunAll(), recorded.journal)
        new: list[Any] = [larger.suggest("e"), larger.suggest("f")]
        assert [one["stage"] for one in new] == ["search", "search"]
        assert [one["number"] for one in new] == ([5, 6] if in_between else [3, 4])
        assert larger.suggest("g") is None
        seen.append([(one["seed"], one["trial"]) for one in new])
    assert seen[0] == seen[1]


def test_the_final_stage_follows_a_search_that_is_given_up_and_knows_no_cap(tmp_path: Path) -> None:
    asked, recorded, _ = a_final_study(tmp_path)
    first: Any = asked.suggest("a")
    recorded.end(0, 1.0)
    asked.on_trial_complete("a", {"spent": 1.0, SCORE: 1.0})
    second: Any = asked.suggest("b")
    asked.proposer.cap = ParameterCap(1, 50)  # below every model, those of the first trials included
    assert asked.suggest("c") is None, "the second trial may be the best"
    assert asked.suggest("c") is None
    assert len(recorded.journal.refused) == REFUSALS, "it is given up once, however often Ray asks"
    recorded.end(second["number"], 2.0)
    asked.on_trial_complete("b", {"spent": 1.0, SCORE: 2.0})
    again: list[Any] = [asked.suggest("c"), asked.suggest("d")]
    assert [(one["stage"], one["trial"]) for one in again] == [("final", first["trial"])] * 2
    for name, one in zip("cd", again, strict=True):
        recorded.end(one["number"], 1.0)
        asked.on_trial_complete(name, {"spent": 1.0, SCORE: 1.0})
    assert asked.suggest("e") == "FINISHED"
    assert len(recorded.journal.refused) == REFUSALS
    assert [trial.outcome for trial in recorded.journal.in_stage("search")] == ["completed"] * 2
    with pytest.raises(StudyFailed, match="What was trained until then is in"):
        asked.proposer.check()


def test_a_search_whose_time_is_up_is_set_aside_for_the_final_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, recorded, final = a_final_study(tmp_path)
    scheduler = StudyScheduler(RunAll(), asked.ours, final)
    asked.suggest("a")
    recorded.end(0, 1.0)
    asked.on_trial_complete("a", {"spent": 1.0, SCORE: 1.0})
    running: Any = asked.suggest("b")
    trial = SimpleNamespace(config=running)
    assert scheduler.on_trial_result(None, trial, {"spent": 0.5, SCORE: 2.0, "finished": ""}) == "CONTINUE"
    monkeypatch.setattr(final, "is_due", lambda: True)
    assert scheduler.on_trial_result(None, trial, {"spent": 1.0, SCORE: 2.0, "finished": "budget"}) == "CONTINUE"
    assert final.set_aside == set(), "what has ended has ended"
    assert scheduler.on_trial_result(None, trial, {"spent": 0.7, SCORE: 2.0, "finished": ""}) == "STOP"
    assert final.set_aside == {1}
    assert asked.suggest("c") is None
    asked.on_trial_complete("b", {"spent": 0.7, SCORE: 2.0})
    again: Any = asked.suggest("c")
    assert (again["stage"], again["number"]) == ("final", 2), "and not the third trial of the search"
    of_final = SimpleNamespace(config=again)
    assert scheduler.on_trial_result(None, of_final, {"spent": 0.5, SCORE: 9.0, "finished": ""}) == "CONTINUE"
    assert scheduler.on_trial_result(None, of_final, {"spent": 0.5, SCORE: math.inf, "finished": ""}) == "STOP"


def test_the_scheduler_is_not_asked_about_trials_of_the_final_stage() -> None:
    rules, searcher = Asha([1.0], 3.0), a_searcher()
    for number in range(4):
        trial = SimpleNamespace(config={"number": number, "stage": "final"})
        assert (
            StudyScheduler(rules, searcher).on_trial_result(None, trial, {"spent": 1.0, SCORE: float(number)})
            == "CONTINUE"
        )
    assert rules.rungs[0][1].scores == []


LOSS = ray.exceptions.ActorUnavailableError("keepalive watchdog timeout", None)


def test_a_trial_whose_machine_is_gone_goes_on_from_its_checkpoint_and_the_searcher_does_not_hear_of_it(
    tmp_path: Path,
) -> None:
    asked, recorded, _ = a_final_study(tmp_path)
    first: Any = asked.suggest("a")
    recorded.save(0, 0.5, tiny.packed())
    scheduler = StudyScheduler(RunAll(), asked.ours, None, asked.lost)
    for attempt in range(int(ALLOWED[GONE])):
        trial = SimpleNamespace(config=first, met=LOSS)
        scheduler.on_trial_error(None, trial)
        assert 0 in asked.lost
        asked.on_trial_complete("a", error=True)
        again: Any = asked.suggest("a")
        assert 0 not in asked.lost
        assert (again["number"], again["seed"], again["trial"]) == (0, first["seed"], first["trial"])
        assert again["resume_from"] == str(tmp_path / "0/0.5")
        assert Path(again["folder"]).name == f"trial_0000_from_0.5_again_{attempt + 1}", "the lost one may still write"
    assert asked.ours.evidence.trials[0].running
    scheduler.on_trial_error(None, SimpleNamespace(config=first, met=LOSS))
    assert 0 not in asked.lost, "and not for ever"
    resumed = Journal(recorded.journal.path)
    assert resumed.trials[0].lost == ALLOWED[GONE]
    resumed.open_session("sha", 2, 0.0)
    assert resumed.trials[0].lost == 0
    assert [one.spent for one in resumed.trials[0].reports] == [0.5]


@pytest.mark.parametrize(
    ("address", "status", "moves"),
    [("10.0.0.2", "RUNNING", True), ("10.0.0.2", "TERMINATED", False), ("10.0.0.3", "RUNNING", False)],
)
def test_a_trial_leaves_a_machine_that_is_about_to_be_taken_away_as_soon_as_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, status: str, moves: bool
) -> None:
    asked, recorded, _ = a_final_study(tmp_path)
    given, ended = asked.suggest("a"), list[str]()
    monkeypatch.setattr(ray, "kill", ended.append)
    monkeypatch.setattr(adapters, "is_cluster", lambda: True)
    room: Any = SimpleNamespace(look=lambda: None, leaving=frozenset({"10.0.0.2"}))
    callback = StudyCallback(recorded, asked.final, lambda: None, asked.lost, room)  # type: ignore[arg-type]
    trial: Any = SimpleNamespace(config=given, status="RUNNING", temporary_state=SimpleNamespace(ray_actor="process"))
    callback.on_step_begin(0, [trial])
    saved = Saved(tmp_path / "0/0.5", tiny.packed())
    trial.last_result = {REPORT: report(0.5, 1.0), CHECKPOINT: saved, PLACE: ("worker1", [1]), "node_ip": address}
    callback.on_trial_result(0, [trial], trial, trial.last_result)
    assert ended == [], "what it has reported is still being looked at"
    trial.status = status
    callback.on_step_begin(1, [trial])
    callback.on_step_begin(2, [trial])
    assert ended == ["process"] * moves
    assert (recorded.journal.trials[0].machine, recorded.journal.trials[0].gpus) == ("worker1", [1])
    killed = died("The actor is dead because it was killed by `ray.kill`.")
    for _ in range(20 if moves else 0):
        StudyScheduler(RunAll(), asked.ours, None, asked.lost).on_trial_error(
            None, SimpleNamespace(config=given, met=killed)
        )
        assert asked.lost.next(search_is_over=False) is recorded.journal.trials[0]
        asked.lost.moving.add(0)
    assert Journal(recorded.journal.path).trials[0].spent == 0.5
    asked.lost.moving.clear()
    assert asked.lost.take(0, LOSS), "what has been moved often may be lost as often as others"


def test_a_lost_trial_takes_the_slot_of_a_process_that_waits(tmp_path: Path) -> None:
    """A new process would have no room where machines have gone, and those that wait hold what is left."""
    asked, recorded, _ = a_final_study(tmp_path, trials=9)
    asked.slots = 3
    first: list[Any] = [asked.suggest(name) for name in "abc"]
    assert [one["slot"] for one in first] == [0, 1, 2]
    asked.lost.take(0, LOSS)
    asked.on_trial_complete("a", error=True)
    recorded.end(2, 1.0)
    asked.on_trial_complete("c", {"spent": 1.0, SCORE: 1.0})
    again: Any = asked.suggest("d")
    assert (again["number"], again["slot"]) == (0, 2)
    new: Any = asked.suggest("e")
    assert new["slot"] == 0, "and a new process where none waits"


def test_processes_that_idle_make_room_for_a_trial_that_waits_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ended = [0.0], list[bool]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    controller = SimpleNamespace(
        _pending_trials={"one"},
        _actor_cache=SimpleNamespace(num_cached_objects=2),
        _cleanup_cached_actors=lambda force_all: ended.append(force_all),
        get_trials=list,
    )
    scheduler = StudyScheduler(RunAll(), a_searcher())
    for now[0] in (1.0, 10.0, 15.5):
        scheduler.choose_trial_to_run(controller)
    assert ended == [], "its process may just be starting"
    now[0] = 16.5
    scheduler.choose_trial_to_run(controller)
    assert ended == [True]
    controller._pending_trials = set()
    for now[0] in (17.0, 40.0):
        scheduler.choose_trial_to_run(controller)
    controller._pending_trials = {"another"}
    scheduler.choose_trial_to_run(controller)
    assert ended == [True], "each wait counts for itself"
    scheduler.lost = LostTrials(None)  # type: ignore[arg-type]
    scheduler.choose_trial_to_run(controller)
    assert ended == [True]
    scheduler.lost.leaving = frozenset({"10.0.0.2"})
    scheduler.choose_trial_to_run(controller)
    assert ended == [True, True], "no trial begins on a machine that is about to go"


@pytest.mark.parametrize("cluster", [False, True])
def test_processes_that_idle_on_a_cluster_end_so_that_machines_are_given_back(
    cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ended = [0.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(adapters, "is_cluster", lambda: cluster)
    controller = SimpleNamespace(
        _pending_trials=set(),
        _actor_cache=SimpleNamespace(num_cached_objects=1),
        _cleanup_cached_actors=lambda force_all: ended.append(now[0]),
        get_trials=list,
    )
    scheduler = StudyScheduler(RunAll(), a_searcher())
    for now[0] in range(1, 100, 5):
        scheduler.choose_trial_to_run(controller)
    assert ended == ([66] if cluster else [])


@pytest.mark.parametrize(("damaged", "spent"), [((), 0.75), ((0.75,), 0.5), ((0.5, 0.75), 0.0)])
def test_a_damaged_checkpoint_has_a_trial_go_back_to_the_one_before(
    tmp_path: Path, damaged: tuple[float, ...], spent: float
) -> None:
    asked, recorded, _ = a_final_study(tmp_path)
    given: Any = asked.suggest("a")
    for at in (0.5, 0.75):
        content = tiny.packed(1000)
        recorded.save(0, at, content[:500] + b"?" + content[501:] if at in damaged else content)
    asked.lost.take(0, LOSS)
    asked.on_trial_complete("a", error=True)
    given = asked.suggest("a")
    assert given["resume_from"] == (str(tmp_path / f"0/{spent:g}") if spent else None)
    assert Journal(recorded.journal.path).trials[0].spent == spent
    assert recorded.journal.trials[0].checkpoint_reports == len(recorded.journal.trials[0].reports)


def died(text: str) -> ray.exceptions.ActorDiedError:
    error = ray.exceptions.ActorDiedError()
    error.error_msg = text
    return error


KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialTrainable\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed. If "
    "the process was killed by the kernel OOM killer (verifiable by checking for OOM in dmesg of the OOMing node), "
    "consider enabling resource isolation to prevent node deaths by resource contention."
)
"""What Ray 2.60 says, shortened, of a process that got SIGKILL."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LOSS, lost.GONE),
        (died("The actor died because its node has died. Node Id: 12"), lost.GONE),
        (died(KILLED), lost.KILLED),
        (ray.exceptions.RayActorError(error_msg="in its creation task", actor_init_failed=True), None),
        (ValueError("node died"), None),
        (None, None),
    ],
)
def test_why_a_process_is_lost(error: BaseException | None, reason: str | None) -> None:
    assert lost.why_lost(error) == reason


def test_how_often_a_trial_goes_on_depends_on_how_it_was_lost(tmp_path: Path) -> None:
    asked, _, _ = a_final_study(tmp_path, trials=9)
    asked.suggest("a")
    taken = [asked.lost.take(0, LOSS) for _ in range(6)]
    assert taken == [True] * 5 + [False]
    assert [asked.lost.take(0, died(KILLED)) for _ in range(2)] == [True, False], "each is counted for itself"


def test_a_trial_whose_process_was_killed_waits_until_another_makes_room(tmp_path: Path) -> None:
    asked, recorded, _ = a_final_study(tmp_path, trials=9)
    asked.slots = 3
    for number, name in enumerate("abc"):
        asked.suggest(name)
        recorded.running.add(number)
    asked.lost.take(0, died(KILLED))
    asked.on_trial_complete("a", error=True)
    new: Any = asked.suggest("d")
    assert new["number"] == 3
    recorded.running.add(3)
    assert asked.lost.next(search_is_over=False) is None
    recorded.end(3, 1.0)
    recorded.running.remove(3)
    assert asked.lost.next(search_is_over=False) is None, "it was not there before"
    recorded.running.remove(2)
    assert asked.lost.next(search_is_over=True) is None
    again = asked.lost.next(search_is_over=False)
    assert again is recorded.journal.trials[0]
    recorded.running.clear()
    asked.lost.take(1, died(KILLED))
    assert asked.lost.next(search_is_over=False) is recorded.journal.trials[1], "alone it waits for nobody"


@pytest.mark.parametrize(
    ("error", "starting", "reason"),
    [
        (ray.exceptions.ObjectReconstructionFailedError("ab", None, ""), False, lost.GONE),
        (ray.exceptions.OwnerDiedError("ab", None, ""), False, lost.GONE),
        (ray.exceptions.ActorUnschedulableError("no such node"), False, lost.GONE),
        (ray.exceptions.OutOfMemoryError("1 worker(s) were killed, node low on memory"), False, lost.KILLED),
        (ray.exceptions.OutOfMemoryError("1 worker(s) were killed, node low on memory"), True, lost.KILLED),
        (ray.exceptions.RuntimeEnvSetupError("No space left on device"), True, None),
    ],
)
def test_whatever_ray_says_of_a_lost_process_it_is_lost(error: Exception, starting: bool, reason: str | None) -> None:
    met: list[BaseException] = []
    tracked: Any = SimpleNamespace(actor_id=7, _on_error=lambda actor, error: met.append(error))
    task: Any = SimpleNamespace(_tracked_actor=tracked, _on_error=None)
    with processes_may_be_lost():
        manager = tune_controller.__dict__["RayActorManager"](resource_manager=None)
        manager._cleanup_actor = lambda tracked_actor: None
        if starting:
            manager._actor_start_failed(tracked, error)
        else:
            manager._actor_task_failed(task, error)
    assert lost.why_lost(met[0]) == reason
    assert tune_controller.__dict__["RayActorManager"] is not type(manager)


@pytest.mark.parametrize("loss", [0.1, 3.9, 1e9])
def test_a_trial_that_diverged_after_good_reports_scores_as_diverged(loss: float) -> None:
    assert report(1.0, loss).score == loss
    assert report(3.0, loss, "diverged").score == math.inf


@pytest.mark.parametrize(
    ("traceback", "expected"),
    [
        ("Traceback\nValueError: bad\n", "ValueError: bad"),
        ("Traceback\ntune_rnn.errors.TrialFailed: The disk is full.\n", "The disk is full."),
        ("The actor is dead because its owner has died.\n", "its process was killed, perhaps because"),
        ("The actor died because of an error raised in its creation task\nImportError: no x\n", "ImportError: no x"),
        ("E: The actor died for lack of memory: 1 worker(s) were killed.\n", "its process was killed because"),
        (
            "ActorUnavailableError: The actor 4ee2 is unavailable: RpcError: keepalive watchdog timeout\n",
            "its process did not answer for long",
        ),
        ("", "unknown"),
    ],
)
def test_a_traceback_becomes_a_reason_in_one_line(traceback: str, expected: str) -> None:
    assert reason_of(traceback).startswith(expected)
