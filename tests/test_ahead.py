"""What is done ahead of need: whose processes load it, and that nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.tune.execution import class_cache

import tune_rnn
from tune_rnn.schema import Resources
from tune_rnn.study import ahead


@pytest.mark.parametrize(
    ("resources", "gpu", "loaded"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"device": "cpu"}, True, True),
        ({"use": {"cpu": 4}}, False, True),
        ({"use": {"cpu": 3}}, False, False),
        ({"per_trial": {"cpu": 4}}, False, False),
    ],
)
def test_processes_load_ahead_where_most_of_them_will_train(
    resources: dict[str, Any], gpu: bool, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(ahead, "may_have_gpu", lambda: gpu)
    with ahead.preloading(Resources.model_validate(resources)):
        assert (ahead.PRELOAD in os.environ) is loaded


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ahead.PRELOAD, "theirs")
    monkeypatch.delenv(ahead.PATH, raising=False)
    before = dict(os.environ)
    with ahead.preloading(Resources(device="cpu")):
        assert os.environ[ahead.PRELOAD] == "theirs,tune_rnn.study.preload"
        assert os.environ[ahead.PATH] == str(Path(tune_rnn.__file__).parents[1])
    assert dict(os.environ) == before


def test_actors_need_no_environment_of_their_own_for_a_while() -> None:
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    assert all(before)
    with ahead.processes_at_hand():
        assert not class_cache.DEFAULT_ENV_VARS
        assert not class_cache.ENV_VARS_TO_PROPAGATE
    assert before == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)


def test_what_leads_a_study_loads_no_torch() -> None:
    code = "import sys, tune_rnn.study.tuning, tune_rnn.study.study; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_cannot_be_loaded_ahead_is_left_to_the_trial() -> None:
    code = "import sys; sys.modules['torch'] = None; import gc, tune_rnn.study.preload; print(gc.isenabled())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert "import of torch halted" in done.stderr
