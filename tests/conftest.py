"""What all tests share: no test touches the user's cache, a cluster that is not its own, or the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The machine may be busy, so no example has a deadline; the same examples each time, so that red stays red.
settings.register_profile("tune_rnn", deadline=None, derandomize=True)
settings.load_profile("tune_rnn")


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
