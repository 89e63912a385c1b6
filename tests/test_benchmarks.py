"""The benchmarks run, and measure every regulariser there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tune_rnn
from tune_rnn.results.evaluate import evaluate_run
from tune_rnn.schema import Regularizers

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "regularizer_cost.py"


def test_the_cost_of_regularisers_is_measured() -> None:
    command = [sys.executable, str(SCRIPT), "--rows", "1", "--only", "nothing", "all", "--seconds", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if re.match(r"\| `(nothing|all)` \| [+-]\d+\.\d % ", line)]
    assert len(rows) == 2
    assert "limit 25" in rows[1]


def test_every_regulariser_has_a_case() -> None:
    text = SCRIPT.read_text("utf-8")
    without_a_cost_of_its_own = {"nt_asgd"}  # an average as swa's, once it has begun
    for name in set(Regularizers.model_fields) - without_a_cost_of_its_own:
        assert f'"{name}":' in text, name


def test_the_decoders_are_compared() -> None:
    script = SCRIPT.with_name("decoder.py")
    command = [sys.executable, str(script), "--words", "3000", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times = r" \| ".join([r"\d+ ms, \d+\.\d\d"] * 3)
    assert re.search(rf"^\| 3,000 \| 8 MiB \| {times} \|$", done.stdout, re.MULTILINE)


def test_the_cost_of_proposals_is_measured() -> None:
    command = [sys.executable, str(SCRIPT.with_name("proposals.py")), "--trials", "20", "--repeats", "1"]
    done = subprocess.run([*command, "--searches", "hyperopt", "optuna"], capture_output=True, text=True, check=True)
    assert re.findall(r"^\| `(\w+)` \| \d\.\d{3} s \|$", done.stdout, re.MULTILINE) == ["hyperopt", "optuna"]


def test_searches_are_compared_and_not_played_twice(tmp_path: Path) -> None:
    results = tmp_path / "search.jsonl"
    command = [sys.executable, str(SCRIPT.with_name("search.py")), "--results", str(results), "--workers", "2"]
    command += ["--seeds", "2", "--boxes", "noisy", "--methods", "random", "tune_rnn", "ray"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in first.stdout.splitlines()[2:5]]
    assert [row[0].strip("| ") for row in rows] == ["random", "tune_rnn", "ray"]
    assert all(0 <= float(mean) <= 1 for row in rows for mean in row[1:4])
    assert rows[2][4] == "1.00 (1.00 to 1.00)"
    played = results.read_text()
    assert len(played.splitlines()) == 6
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout
    assert results.read_text() == played


def test_the_cost_of_a_search_with_many_workers_is_measured() -> None:
    command = [sys.executable, str(SCRIPT.with_name("search_scale.py")), "--workers", "20", "--trials", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(
        r"^\| hyperopt \| asha \| 20 \| 40 \| \d+ \| \d+\.\d \| \d+ \| [\d,]+ \|$", done.stdout, re.MULTILINE
    )


def test_a_run_is_evaluated_by_the_protocol_of_nanogpt(corpus: Path, tmp_path: Path) -> None:
    experiment = tune_rnn.Experiment(
        name="run",
        task={"corpus": str(corpus)},
        model={"embedding_size": 8, "hidden_size": 8},
        training={"batch_size": 8, "sequence_length": 32},
        budget={"epochs": 1},
        storage=str(tmp_path),
    )
    run = tune_rnn.train(experiment).path
    command = [sys.executable, str(SCRIPT.with_name("nanogpt_protocol.py")), str(run), "--batches", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, row = (line.strip("| ").split(" | ") for line in done.stdout.splitlines())
    carried, windows, error = map(float, row[1:])
    assert row[0] == str(run)
    assert carried == pytest.approx(evaluate_run(run)["loss"], abs=1e-4)
    assert windows == pytest.approx(carried, abs=0.1)
    assert 0 < error < 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_is_compared_with_plain_tuner() -> None:
    command = [sys.executable, str(SCRIPT.with_name("ray_overhead.py")), "--trials", "6", "--pairs", "0"]
    done = subprocess.run([*command, "--search", "random"], capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[4:]]
    assert [row[2] for row in rows] == ["plain", "random"]
    assert float(rows[1][4]) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_memory_of_corpus_and_processes_is_measured() -> None:
    command = [sys.executable, str(SCRIPT.with_name("memory.py")), "--bytes", "2e6", "--workers", "1"]
    done = subprocess.run([*command, "--trials", "21"], capture_output=True, text=True, check=True)
    assert re.search(r"^one process: \d{3} MB after 20 trials, \d{3} MB after 21$", done.stdout, re.MULTILINE)
    assert re.search(r"^1 workers, text of 2 MB: corpus -?\d+ MB in all$", done.stdout, re.MULTILINE)
    assert re.search(r"^one of them, at most: \d{3} MB of its own$", done.stdout, re.MULTILINE)
