"""What all tests share: no test touches the user's cache, a cluster that is not its own, or the network."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The machine may be busy, so no example has a deadline; the same examples each time, so that red stays red.
settings.register_profile("tune_rnn", deadline=None, derandomize=True)
settings.load_profile("tune_rnn")

STATUS = pytest.StashKey[int]()
"""What the tests end with."""


@pytest.fixture(scope="session", autouse=True)
def _apart_from_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own; no Ray but the one a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """The folder of local data sets that TUNE_RNN_DATA names; the test is skipped where there is none."""
    directory = os.environ.get("TUNE_RNN_DATA")
    if not directory:
        pytest.skip("TUNE_RNN_DATA names no folder of data sets")
    return Path(directory)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of about 30,000 characters, the same on every machine and in every Python."""
    file = tmp_path_factory.mktemp("corpus") / "text.txt"
    subjects, verbs = ("the cat", "a dog", "my aunt", "the old king"), ("sees", "hears", "follows", "forgets")
    objects = ("the moon.", "a small house,", "her brother;", "nothing at all.", "the river and the sea.")
    sentences = [
        f"{subjects[n % 4]} {verbs[n * n % 4]} {objects[n * 7 % 5]}{chr(10) if n % 6 == 5 else ' '}"
        for n in range(1000)
    ]
    file.write_text("".join(sentences), "utf-8")
    return file


@pytest.fixture
def every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The display of a run is told of every change, also where a look at all trials took long."""
    monkeypatch.setattr("tune_rnn.results.recorder.LONGEST_PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As a trial with one processor has it, for tests that compare numbers bit for bit; it is also faster here."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """Training in this process sets denormal numbers to zero for good, and Hypothesis cannot work without them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


CLUSTER = Path(__file__).parent / "cluster"
CLUSTER_ORDER = ["test_aws", "test_onprem", "test_strangers", "test_smoke"]
"""The first test of the second wants a cluster that has just begun, the last one takes the cluster down."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in tests/cluster needs hosts of its own (`tests/cluster/bed.py`), or says why there can be none."""
    ours = [item for item in items if CLUSTER in item.path.parents]
    if not ours:
        return
    items.sort(key=lambda item: CLUSTER_ORDER.index(item.path.stem) if item in ours else -1)
    import bed

    reason = bed.why_not()
    for item in ours:
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.timeout(600))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def bed() -> Iterator[Any]:
    """A laptop, a head and two workers, switched on."""
    from bed import Bed

    made = Bed(workers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def new_cluster(bed: Any) -> Iterator[str]:
    """A cluster's file on the laptop; the head is up, workers are not reached yet, and all goes down without a trace.

    Its workers count two GPUs each, which are not there, and listen to notices as Amazon gives them.
    """
    from studies import end_of_ray, ray_down, ray_up

    file = bed.cluster_file(gpus=2, cloud="aws")
    for worker in bed.workers:
        worker.connect(False)
    ray_up(bed, file)
    yield file
    ray_down(bed, file)
    end_of_ray(bed.head, *bed.workers)


@pytest.fixture(scope="session")
def cluster(bed: Any, new_cluster: str) -> str:
    """The same with its workers."""
    from studies import workers_join

    workers_join(bed)
    return new_cluster


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once: threads that Ray's client leaves after `ray.shutdown` have crashed a process that was ending.

    All tests had passed, and `make` saw a segmentation fault.
    """
    if STATUS in config.stash and "ray" in sys.modules:
        atexit._run_exitfuncs()  # pytest's own are among them, which delete old temporary directories
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])
