"""Studies on a bed: started from the laptop, watched in the head's files, judged by what is left of them."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from bed import PROJECT, Bed, Host

from tune_rnn.errors import InputError
from tune_rnn.results.journal import Journal, TrialRecord, lowest

TRIALS = 12
TEXT = "\n".join(topics[topic] for topic in sorted(topics))[:100_000]
"""Of such a size that an epoch takes about a second where six trials share two processors."""

STUDY = """
name: {name}
task: {{corpus: text.txt}}
model: {{embedding_size: 16, hidden_size: {{choice: [32, 64]}}}}
training: {{batch_size: 32, sequence_length: 32, learning_rate: {{log_uniform: [1e-3, 1e-2]}}, precision: fp32}}
budget: {{epochs: {epochs}, trials: {trials}}}
search: {{algorithm: hyperopt, seed: 3}}
resources: {{device: cpu}}
final: {{top_k: 0}}
"""


def ray_up(bed: Bed, cluster: str) -> None:
    """Start the cluster as a person does: then the head is up, and workers are about to join."""
    _ray(bed, "up", f"{cluster} --no-config-cache")


def workers_join(bed: Bed) -> None:
    for worker in bed.workers:
        worker.connect(True)
    wait(lambda: machines_of(bed) == 3, 120, "machines do not join")


def ray_down(bed: Bed, cluster: str) -> None:
    _ray(bed, "down", cluster)


def end_of_ray(*hosts: Host) -> None:
    """Wait until no process of Ray's, nor of ours beside it, is left on those of the hosts that are on."""
    names = ("raylet", "gcs_server", "ray::", "log_monitor", "attendant", "dashboard")

    def left() -> list[str]:
        on = [host for host in hosts if host.process is not None]
        return [f"{host.name}: {line}" for host in on for name in names for line in host.processes(name)]

    wait(lambda: not left(), 150, lambda: "Ray is left:\n" + "\n".join(left()))


def _ray(bed: Bed, command: str, arguments: str) -> None:
    log = f"~/{command}.log"
    bed.laptop.run(f"cd {PROJECT} && ray {command} -y {arguments} > {log} 2>&1 || (cat {log}; false)", check=True)


def machines_of(bed: Bed) -> int:
    """How many machines Ray says are there."""
    said = bed.head.run("RAY_AUTH_MODE=token ray status").stdout
    active = said.partition("Active:")[2].partition("Pending:")[0]
    return sum(int(line.split()[0]) for line in active.splitlines() if line.strip()[:1].isdigit())


def all_answer(bed: Bed) -> bool:
    """Whether all three machines are there and at work, and none is one that Ray has yet to miss."""
    asked = """echo '{"versions": {}, "uses_gpus": false}' | python -m tune_rnn.submission.head inspect"""
    said = bed.head.run(asked, env={"RAY_AUTH_MODE": "token"}).stdout.splitlines()
    found = json.loads(said[-1]) if said and said[-1].startswith("{") else {}
    return found.get("problems") == [] and len(found["machines"]) == 3


class SubmittedStudy:
    """A study that `tune-rnn submit` runs on a bed's cluster."""

    def __init__(
        self, bed: Bed, cluster: str, name: str, *overrides: str, epochs: int = 12, trials: int = TRIALS
    ) -> None:
        self.bed, self.cluster, self.name, self.trials = bed, cluster, name, trials
        (bed.laptop.home / "text.txt").write_text(TEXT, "utf-8")
        (bed.laptop.home / f"{name}.yaml").write_text(STUDY.format(name=name, epochs=epochs, trials=trials))
        self.command = bed.laptop.start_command(f"tune-rnn submit {cluster} {name}.yaml {shlex.join(overrides)}")

    @property
    def run(self) -> Path | None:
        """Its run directory on the head, as seen from outside."""
        found = sorted(self.bed.head.home.glob(f"tune_rnn/results/*/{self.name}"))
        return found[-1] if found else None

    @property
    def journal(self) -> Journal | None:
        run = self.run
        with suppress(FileNotFoundError, IndexError, InputError):  # just being written
            return Journal(run / "trials.jsonl") if run is not None and (run / "trials.jsonl").exists() else None
        return None

    def lines(self) -> list[str]:
        """Its journal as it is."""
        assert self.run is not None
        return (self.run / "trials.jsonl").read_text("utf-8").splitlines()

    def reports(self) -> int:
        journal = self.journal
        return sum(len(trial.reports) for trial in journal.trials.values()) if journal else 0

    def going_on(self) -> list[TrialRecord]:
        """Trials that have not ended and have an older checkpoint to go back to."""
        journal = self.journal
        trials = journal.trials.values() if journal else ()
        return [trial for trial in trials if not trial.outcome and len(trial.checkpoints) > 1]

    def has_lost_a_trial(self) -> bool:
        journal = self.journal
        return journal is not None and any(trial.lost for trial in journal.trials.values())

    def wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait for something that comes while the study is at work."""

        def there() -> bool:
            assert self.command.poll() is None, f"{otherwise}:\n{self.command.communicate()[0]}"
            return condition()

        wait(there, seconds, otherwise)

    def wait_for_reports(self, count: int) -> None:
        self.wait(lambda: self.reports() >= count, 120, "the study does not report")

    def wait_for_checkpoints(self) -> None:
        """Until each of the six trials that run first has been saved."""

        def all_saved() -> bool:
            journal = self.journal
            first = [journal.trials[number] for number in range(6)] if journal and len(journal.trials) >= 6 else []
            return bool(first) and all(trial.checkpoint for trial in first)

        self.wait(all_saved, 120, "the study does not report")

    def finish(self, seconds: float = 300, status: int = 0) -> str:
        """Wait for the command's end; returns what it said."""
        try:
            said, _ = self.command.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.command.kill()
            log = "\n".join(self.bed.head.run("tail -40 ~/tune_rnn/jobs/*/log").stdout.splitlines())
            raise AssertionError(f"the study does not end:\n{log}") from None
        assert self.command.returncode == status, said
        return said

    def resume(self, *overrides: str) -> None:
        self.command = self.bed.laptop.start_command(f"tune-rnn submit {self.cluster} --resume {' '.join(overrides)}")

    @property
    def brought(self) -> Path:
        """Where its result has been brought back to, last."""
        found = (self.bed.laptop.home / "results").glob(f"{self.name}*/summary.json")
        return max(found, key=lambda file: file.stat().st_mtime).parent

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.brought / "summary.json").read_text("utf-8"))
        return summary

    def check(self, failed: int = 0) -> dict[str, Any]:
        """No trial lost, none counted twice, and the answer is what the records say; returns the summary."""
        summary, latest = self.summary, self.brought
        journal = Journal(latest / "trials.jsonl")
        trials, ends = summary["trials"], ("completed", "stopped_early", "diverged", "failed")
        assert (summary["status"], trials["total"], trials["failed"]) == ("completed", TRIALS, failed)
        assert sum(trials[how] for how in ends) == TRIALS
        assert sorted(journal.trials) == list(range(TRIALS))
        for trial in journal.trials.values():
            spent = [report.spent for report in trial.reports]
            assert spent == sorted(set(spent)), f"trial {trial.number} reported twice at the same budget"
            assert trial.outcome
        best = lowest(journal.trials.values())
        assert best is not None
        assert (summary["best"]["trial"], summary["best"]["metrics"]["validation_loss"]) == (
            best.number,
            best.best_loss,
        )
        assert (latest / "best" / "model.safetensors").exists()
        return summary


def wait(condition: Callable[[], bool], seconds: float, otherwise: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.3)


def epochs_of(journal: Journal | None) -> dict[int, list[float | None]]:
    """The losses of every trial that has ended."""
    trials = journal.trials if journal else {}
    return {number: [one.validation_loss for one in trial.reports] for number, trial in trials.items() if trial.outcome}
