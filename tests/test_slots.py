"""How many trials run at a time: what one gets, what the study may use, what there is and what is waited for."""

from __future__ import annotations

import sys
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from tune_rnn.display import Display
from tune_rnn.errors import InputError, StudyFailed
from tune_rnn.experiment import Experiment
from tune_rnn.schema import Resources
from tune_rnn.signals import Interrupt
from tune_rnn.study import study
from tune_rnn.study.cluster import Slots, count_slots

LAPTOP = {"CPU": 8.0}
WORKSTATION = {"CPU": 32.0, "GPU": 2.0}
STARVED = {"CPU": 4.0, "GPU": 8.0}

FITS: list[tuple[dict[str, Any], dict[str, float], Slots]] = [
    ({}, LAPTOP, Slots(8, 1, 0)),
    ({}, WORKSTATION, Slots(2, 1, 1)),
    ({}, STARVED, Slots(4, 1, 1)),
    ({"device": "cpu"}, WORKSTATION, Slots(32, 1, 0)),
    ({"device": "cuda"}, WORKSTATION, Slots(2, 1, 1)),
    ({"per_trial": {"cpu": 3.0}}, LAPTOP, Slots(2, 3, 0)),
    ({"per_trial": {"cpu": 0.5}}, LAPTOP, Slots(16, 0.5, 0)),
    ({"per_trial": {"cpu": 0.1}}, {"CPU": 0.3}, Slots(3, 0.1, 0)),
    ({"per_trial": {"gpu": 0.25}}, WORKSTATION, Slots(8, 1, 0.25)),
    ({"per_trial": {"gpu": 0.1}}, {"CPU": 99.0, "GPU": 0.3}, Slots(3, 1, 0.1)),
    ({"per_trial": {"gpu": 0.7}}, WORKSTATION, Slots(2, 1, 0.7)),
    ({"per_trial": {"gpu": 0}}, WORKSTATION, Slots(32, 1, 0)),
    ({"per_trial": {"gpu": 1}, "device": "cpu"}, LAPTOP, Slots(8, 1, 0)),
    ({"per_trial": {"gpu": 0.25}, "device": "cpu"}, WORKSTATION, Slots(8, 1, 0.25)),
    ({"per_trial": {"cpu": 16.0, "gpu": 0.25}}, WORKSTATION, Slots(2, 16, 0.25)),
    ({"use": {"cpu": 3.0}}, LAPTOP, Slots(3, 1, 0)),
    ({"use": {"cpu": 3.0}}, WORKSTATION, Slots(2, 1, 1)),
    ({"use": {"gpu": 1.0}}, WORKSTATION, Slots(1, 1, 1)),
    ({"use": {"gpu": 0.0}}, WORKSTATION, Slots(32, 1, 0)),
    ({"use": {"gpu": 0.0}}, LAPTOP, Slots(8, 1, 0)),
    ({"use": {"gpu": 1.0}, "per_trial": {"gpu": 0.5}}, WORKSTATION, Slots(2, 1, 0.5)),
    ({"use": {"gpu": 9.0}, "device": "cpu"}, LAPTOP, Slots(8, 1, 0)),
    ({"use": {"gpu": 9.0}, "device": "cpu"}, WORKSTATION, Slots(32, 1, 0)),
    ({"use": {"cpu": 8.0}}, LAPTOP, Slots(8, 1, 0)),
]

REFUSED: list[tuple[dict[str, Any], dict[str, float], str]] = [
    ({"use": {"gpu": 3.0}}, WORKSTATION, "resources.use.gpu: 3.0: the cluster has 2 GPUs. Write 2 or less, or leave"),
    ({"use": {"gpu": 1.0}}, LAPTOP, "resources.use.gpu: 1.0: the cluster has 0 GPUs. Leave it out."),
    ({"use": {"cpu": 9.0}}, LAPTOP, "resources.use.cpu: 9.0: the cluster has 8 processors. Write 8 or less"),
    ({"per_trial": {"cpu": 9.0}}, LAPTOP, "resources.per_trial.cpu: 9.0: the study has 8 processors, too few for one"),
    ({"per_trial": {"gpu": 1}}, LAPTOP, "resources.per_trial.gpu: 1.0: the study has 0 GPUs, too few for one trial."),
    ({"use": {"gpu": 0.5}}, WORKSTATION, "resources.per_trial.gpu: 1.0: the study has 0.5 GPUs, too few for one trial"),
    ({"use": {"cpu": 0.5}, "per_trial": {"cpu": 0.5}}, {}, "resources.use.cpu: 0.5: the cluster has 0 processors"),
    ({"device": "cuda"}, LAPTOP, "resources.device: 'cuda': no trial would get a GPU. Run where there are GPUs, set"),
    ({"device": "cuda", "per_trial": {"gpu": 0}}, WORKSTATION, "resources.device: 'cuda': no trial would get a GPU."),
    ({"device": "cuda", "use": {"gpu": 0.0}}, WORKSTATION, "resources.device: 'cuda': no trial would get a GPU."),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "total", "slots"), FITS)
def test_what_fits(resources: dict[str, Any], total: dict[str, float], slots: Slots) -> None:
    assert count_slots(Resources.model_validate(resources), [total]) == slots


@pytest.mark.parametrize(("resources", "total", "message"), REFUSED)
def test_what_is_refused(resources: dict[str, Any], total: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        count_slots(Resources.model_validate(resources), [total])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("resources", "nodes", "slots"),
    [
        ({"per_trial": {"cpu": 3.0}}, [{"CPU": 4.0}, {"CPU": 4.0}], Slots(2, 3, 0)),
        ({"per_trial": {"cpu": 3.0}, "use": {"cpu": 4.0}}, [{"CPU": 4.0}, {"CPU": 4.0}], Slots(1, 3, 0)),
        ({}, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 4.0}, {}], Slots(2, 1, 1)),
        ({"per_trial": {"gpu": 0.7}}, [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], Slots(2, 1, 0.7)),
    ],
)
def test_a_trial_runs_on_one_node(resources: dict[str, Any], nodes: list[dict[str, float]], slots: Slots) -> None:
    assert count_slots(Resources.model_validate(resources), nodes) == slots


def test_a_trial_too_large_for_every_node_is_refused() -> None:
    with pytest.raises(InputError, match="no single node has that much"):
        count_slots(Resources.model_validate({"per_trial": {"cpu": 3.0}}), [{"CPU": 2.0}, {"CPU": 2.0}])


@pytest.mark.parametrize(("cpu", "threads"), [(0.25, 1), (1, 1), (1.9, 1), (2, 2), (16, 16)])
def test_a_trial_has_as_many_threads_as_whole_processors(cpu: float, threads: int) -> None:
    assert Slots(1, cpu, 0).threads == threads


def test_a_machine_with_a_gpu_is_waited_for_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[str] = []
    task = SimpleNamespace(remote=lambda: "answer")
    fake = SimpleNamespace(
        remote=lambda **options: lambda function: task,
        wait=lambda answers, timeout: ([], answers),
        cancel=given_up.append,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    resolve, slots = (
        partial(study._resolve_on_a_worker, Experiment(name="study", budget={"epochs": 1, "trials": 2})),
        Slots(1, 1.0, 1.0),
    )
    with pytest.raises(StudyFailed, match=r"^No machine with a GPU came up within budget\.hours"):
        resolve(slots, Display(), Interrupt(), time.time() - 1)
    interrupted = Interrupt()
    interrupted.set()
    assert resolve(slots, Display(), interrupted, None) == "fp32"
    assert given_up == ["answer", "answer"]

    def lose(answer: str) -> None:
        raise ray.exceptions.WorkerCrashedError

    fake.wait, fake.get, fake.exceptions = lambda answers, timeout: (answers, []), lose, ray.exceptions
    with pytest.raises(StudyFailed, match=r"^The look at a machine with a GPU was cut off 10 times and more: "):
        resolve(slots, Display(), Interrupt(), None)
