"""Machines of one's own: `ray up cluster/onprem.yaml`, a study, and all that can happen to machines meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from bed import Bed
from studies import SubmittedStudy, epochs_of, machines_of, ray_down, ray_processes, ray_up, wait


@pytest.fixture(scope="module")
def cluster(bed: Bed) -> Iterator[str]:
    """A cluster's file on the laptop; the cluster is up, and goes down without a trace."""
    file = bed.cluster_file()
    ray_up(bed, file)
    yield file
    ray_down(bed, file)
    on = [host for host in (bed.head, *bed.workers) if host.process is not None]
    wait(lambda: not any(map(ray_processes, on)), 150, "Ray is left")


def test_a_study_uses_all_machines_and_its_result_comes_back(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "small")
    study.wait_for_reports(8)
    for host in [bed.head, *bed.workers]:
        assert host.processes("Trainable.train"), f"{host.name} trains nothing"
    said = study.finish()
    assert "3 machines, 6 processors" in said
    assert "12 trials, 6 at a time" in said
    assert "Best configuration" in said
    summary = study.check()
    assert summary["time"]["slots"] == 6
    for command in ("evaluate results/small", "sample results/small --length 20"):
        assert bed.laptop.run(f"tune-rnn {command}").returncode == 0
    assert "small" in bed.laptop.run(f"tune-rnn status {cluster}").stdout


def test_a_dropped_connection_is_taken_up_and_ctrl_c_only_ends_the_following(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "followed")
    study.wait_for_reports(3)
    bed.laptop.connect(False)
    time.sleep(25)
    bed.laptop.connect(True)
    time.sleep(5)
    bed.laptop.run("pkill -INT -f 'tune-rnn submit'", check=True)
    assert "attaches to it again" in study.finish(30, status=130)
    assert "running" in bed.laptop.run(f"tune-rnn status {cluster}").stdout or study.reports() > 0
    study.command = bed.laptop.start_command(f"tune-rnn submit {cluster} --follow")
    assert "Brought back" in study.finish()
    study.check()


def test_a_study_is_stopped_and_goes_on(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "stopped", epochs=10)
    study.wait_for_reports(10)
    assert "has ended" in bed.laptop.run(f"tune-rnn stop {cluster}", check=True).stdout
    assert "was interrupted" in study.finish(60, status=130)
    before = epochs_of(study.journal)
    study.resume()
    study.finish()
    study.check()
    assert before.items() <= epochs_of(study.journal).items()


@pytest.mark.parametrize("seconds", [20, 120])
def test_a_worker_is_cut_off_the_network_and_back(bed: Bed, cluster: str, seconds: float) -> None:
    study = SubmittedStudy(bed, cluster, f"cut-{seconds}", epochs=20)
    wait(study.has_checkpoints_everywhere, 120, "the study does not report")
    bed.workers[0].connect(False)
    time.sleep(seconds)
    bed.workers[0].connect(True)
    study.finish()
    study.check()
    wait(lambda: machines_of(bed) == 3, 120, "the worker does not come back")


def test_a_worker_is_killed_and_another_time_it_is_back(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "killed", "scheduler.algorithm=none", epochs=10)
    wait(study.has_checkpoints_everywhere, 120, "the study does not report")
    bed.workers[1].kill()
    killed_at = time.monotonic()
    wait(
        lambda: any(trial.lost for trial in study.journal.trials.values()) if study.journal else False,
        90,
        "not noticed",
    )
    print(f"noticed after {time.monotonic() - killed_at:.0f} s")
    bed.workers[1].start()
    wait(lambda: machines_of(bed) == 3, 150, "the worker does not come back")
    said = study.finish()
    assert "goes on from epoch" in said
    study.check()


def test_the_study_is_killed_and_resumed(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "driver", epochs=10)
    study.wait_for_reports(20)
    before = epochs_of(study.journal)
    bed.head.run("pkill -KILL -f tune_rnn.submission.job", check=True)
    assert "was killed on the cluster" in study.finish(90, status=1)
    study.resume()
    study.finish()
    study.check()
    assert before.items() <= epochs_of(study.journal).items()


def test_a_damaged_checkpoint_is_passed_over(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "damaged", epochs=10)
    wait(study.has_checkpoints_everywhere, 120, "the study does not report")
    time.sleep(5)
    bed.head.run("pkill -KILL -f tune_rnn.submission.job", check=True)
    study.finish(90, status=1)
    journal, run = study.journal, study.run
    assert journal is not None
    assert run is not None
    going_on = [trial for trial in journal.trials.values() if not trial.outcome and len(trial.checkpoints) > 1]
    newest = run / going_on[0].checkpoint / "checkpoint.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    study.resume()
    said = study.finish()
    before = sorted(going_on[0].checkpoints)[-2]
    assert (
        f"trial_{going_on[0].number:04d}: a checkpoint cannot be read; going back to that of epoch {before:g}" in said
    )
    study.check()


def test_a_full_disk_ends_the_study_and_it_goes_on_when_there_is_room(bed: Bed, cluster: str) -> None:
    bed.head.run("mkdir -p ~/tune_rnn/results && mount -t tmpfs -o size=700k tmpfs ~/tune_rnn/results", check=True)
    study = SubmittedStudy(bed, cluster, "full", epochs=4)
    assert "The disk is full" in study.finish(status=1)
    bed.head.run("mount -o remount,size=1g ~/tune_rnn/results", check=True)
    study.resume()
    study.finish()
    study.check()
    bed.head.run("umount ~/tune_rnn/results", check=True)


def test_a_trial_whose_process_is_killed_again_and_again_fails_and_the_study_does_not(bed: Bed, cluster: str) -> None:
    """As the kernel does with one that takes all memory."""
    study = SubmittedStudy(bed, cluster, "killed-trials", epochs=10)
    wait(study.has_checkpoints_everywhere, 120, "the study does not report")

    def one_has_failed() -> bool:
        bed.workers[0].run("pkill -KILL -f Trainable.train")
        journal = study.journal
        return journal is not None and any(trial.outcome == "failed" for trial in journal.trials.values())

    wait(one_has_failed, 120, "no trial fails")
    assert "its process was killed, perhaps because the machine had too little memory" in study.finish()
    journal = study.journal
    assert journal is not None
    study.check(failed=sum(trial.outcome == "failed" for trial in journal.trials.values()))


def test_the_head_is_killed_brought_up_again_and_the_study_resumed(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "head", epochs=10)
    study.wait_for_reports(20)
    bed.head.kill()
    before = epochs_of(study.journal)
    bed.head.start()
    ray_up(bed, cluster)
    study.finish(120, status=1)
    study.resume()
    study.finish()
    study.check()
    assert before.items() <= epochs_of(study.journal).items()
