"""Machines of one's own: `ray up cluster/onprem.yaml`, a study, and all that can happen to machines meanwhile."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bed import Bed
from studies import SubmittedStudy, all_answer, epochs_of, ray_up, wait, workers_join

METADATA = Path(__file__).with_name("metadata.py")


def test_a_study_uses_workers_that_join_and_its_result_comes_back(bed: Bed, new_cluster: str) -> None:
    study = SubmittedStudy(bed, new_cluster, "small", "scheduler.algorithm=none", epochs=24)
    study.wait_for_reports(1)
    workers_join(bed)
    hosts = bed.head, *bed.workers
    study.wait(lambda: all(host.processes("Trainable.train") for host in hosts), 120, "a machine trains nothing")
    said = study.finish()
    assert "1 machine, 2 processors" in said
    assert "12 trials, 2 at a time" in said
    assert "6 trials at a time now" in said
    assert "Best configuration" in said
    study.check()
    for command in ("evaluate results/small", "sample results/small --length 20"):
        assert bed.laptop.run(f"tune-rnn {command}").returncode == 0
    assert "small" in bed.laptop.run(f"tune-rnn status {new_cluster}").stdout


def test_a_dropped_connection_is_taken_up_and_ctrl_c_only_ends_the_following(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "followed", "scheduler.algorithm=none", epochs=24)
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
    study = SubmittedStudy(bed, cluster, "stopped", "scheduler.algorithm=none", epochs=12)
    study.wait_for_reports(10)
    assert "has ended" in bed.laptop.run(f"tune-rnn stop {cluster}", check=True).stdout
    assert "was interrupted" in study.finish(60, status=130)
    before = epochs_of(study.journal)
    study.resume()
    study.finish()
    study.check()
    assert before.items() <= epochs_of(study.journal).items()


def test_workers_are_cut_off_the_network_and_back(bed: Bed, cluster: str) -> None:
    """One for 20 s, one for 120 s, both from the same moment on."""
    study = SubmittedStudy(bed, cluster, "cut-off", "scheduler.algorithm=none", epochs=40)
    study.wait_for_checkpoints()
    for worker in bed.workers:
        worker.connect(False)
    for worker, seconds in zip(bed.workers, (20, 100), strict=True):
        time.sleep(seconds)
        worker.connect(True)
    study.finish()
    study.check()
    wait(lambda: all_answer(bed), 240, "a worker does not come back")


def test_a_worker_is_killed_and_another_time_it_is_back(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "killed", "scheduler.algorithm=none", epochs=24)
    study.wait_for_checkpoints()
    bed.workers[1].kill()
    killed_at = time.monotonic()
    study.wait(study.has_lost_a_trial, 90, "it is not noticed")
    print(f"noticed after {time.monotonic() - killed_at:.0f} s")
    bed.workers[1].start()
    wait(lambda: all_answer(bed), 240, "the worker does not come back")
    print(f"back after {time.monotonic() - killed_at:.0f} s")
    assert "goes on from epoch" in study.finish()
    study.check()


def test_trials_leave_a_spot_machine_before_it_is_taken_back(bed: Bed, cluster: str) -> None:
    worker = bed.workers[1]
    worker.run("ip addr add 169.254.169.254/32 dev lo", check=True)
    worker.start_command(f"python {METADATA} ~/notice")
    study = SubmittedStudy(bed, cluster, "spot", "scheduler.algorithm=none", epochs=20)
    study.wait_for_checkpoints()
    at = datetime.now(UTC) + timedelta(minutes=2)
    (worker.home / "notice").write_text(json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}))
    wait(lambda: not worker.processes("Trainable.train"), 60, "trials stay")
    worker.kill()
    (worker.home / "notice").unlink()
    worker.start()
    said = study.finish()
    assert "its machine is about to be taken away" in said
    assert "4 trials at a time now, 6 before" in said
    study.check()
    events = [json.loads(line) for line in study.lines()]
    reports = Counter((event["trial"], event["report"]["spent"]) for event in events if event["event"] == "report")
    assert set(reports.values()) == {1}, "nothing was trained twice"
    wait(lambda: all_answer(bed), 240, "the worker does not come back")


def test_trials_share_gpus_and_each_has_its_own(bed: Bed, cluster: str) -> None:
    """GPUs that only Ray counts: the trials train on processors."""
    shares = ("resources.per_trial.cpu=0.5", "resources.per_trial.gpu=0.5", "scheduler.algorithm=none")
    study = SubmittedStudy(bed, cluster, "gpus", *shares, epochs=8)
    assert "12 trials, 8 at a time" in study.finish()
    study.check()
    assert study.journal is not None
    first = [study.journal.trials[number] for number in range(8)]
    places = Counter((trial.machine, *trial.gpus) for trial in first)
    assert places == {(host.name, gpu): 2 for host in bed.workers for gpu in (0, 1)}


def test_a_study_is_on_object_storage(bed: Bed, cluster: str) -> None:
    """A server on the laptop that speaks S3; rights are in a file, where Amazon's libraries look for them."""
    server = bed.laptop.start_command(f"moto_server -H {bed.laptop.address} -p 5000 > ~/moto.log 2>&1")
    for host in (bed.laptop, bed.head):
        (host.home / ".aws").mkdir()
        (host.home / ".aws/credentials").write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\n")
    address = f"{bed.laptop.address}:5000"
    client = f"boto3.client('s3', endpoint_url='http://{address}', region_name='us-east-1')"
    made = f"""python -c "import boto3; {client}.create_bucket(Bucket='results')" """
    wait(lambda: bed.laptop.run(made).returncode == 0, 60, "the server does not start")
    url = f"s3://results/studies?endpoint_override={address}&scheme=http"
    study = SubmittedStudy(bed, cluster, "stored", f"storage={url}", epochs=6)
    assert "12 trials, 6 at a time" in study.finish()
    study.check()
    run = url.replace("studies", "studies/stored")
    loss = f"{study.summary['best']['metrics']['validation_loss']:.6f} nats"
    assert loss in bed.laptop.run(f"tune-rnn evaluate '{run}'", check=True).stdout
    server.kill()


def test_the_study_is_killed_and_resumed_and_a_damaged_checkpoint_passed_over(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "driver", "scheduler.algorithm=none", epochs=14)
    study.wait(lambda: bool(study.going_on()), 120, "the study does not report")
    bed.head.run("pkill -KILL -f tune_rnn.submission.job", check=True)
    assert "was killed on the cluster" in study.finish(90, status=1)
    before = epochs_of(study.journal)
    going_on, run = study.going_on(), study.run
    assert run is not None
    newest = run / going_on[0].checkpoint / "checkpoint.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    study.resume()
    said = study.finish()
    number, spent = going_on[0].number, sorted(going_on[0].checkpoints)[-2]
    assert f"trial_{number:04d}: a checkpoint cannot be read; going back to that of epoch {spent:g}" in said
    study.check()
    assert before.items() <= epochs_of(study.journal).items()


def test_a_full_disk_ends_the_study_and_it_goes_on_when_there_is_room(bed: Bed, cluster: str) -> None:
    bed.head.run("mkdir -p ~/tune_rnn/results && mount -t tmpfs -o size=700k tmpfs ~/tune_rnn/results", check=True)
    study = SubmittedStudy(bed, cluster, "full", epochs=12)
    assert "The disk is full" in study.finish(status=1)
    bed.head.run("mount -o remount,size=1g ~/tune_rnn/results", check=True)
    study.resume()
    study.finish()
    study.check()
    bed.head.run("umount ~/tune_rnn/results", check=True)


def test_a_trial_whose_process_is_killed_again_and_again_fails_and_the_study_does_not(bed: Bed, cluster: str) -> None:
    """As the kernel does with one that takes all memory."""
    study = SubmittedStudy(bed, cluster, "killed-trials", epochs=20)
    study.wait_for_checkpoints()

    def one_has_failed() -> bool:
        for host in (bed.head, *bed.workers):
            host.run("pkill -KILL -f Trainable.train")
        journal = study.journal
        return journal is not None and any(trial.outcome == "failed" for trial in journal.trials.values())

    study.wait(one_has_failed, 120, "no trial fails")
    assert "its process was killed, perhaps because the machine had too little memory" in study.finish()
    journal = study.journal
    assert journal is not None
    study.check(failed=sum(trial.outcome == "failed" for trial in journal.trials.values()))


def test_a_trial_that_takes_more_memory_than_there_is_fails_and_the_study_does_not(bed: Bed, cluster: str) -> None:
    for host in (bed.head, *bed.workers):
        host.limit_memory(2 << 30)
    study = SubmittedStudy(bed, cluster, "hungry", "model.hidden_size={choice: [16, 32, 64, 12000]}", epochs=10)
    assert "its process was killed, perhaps because the machine had too little memory" in study.finish()
    journal = study.journal
    assert journal is not None
    hungry = {trial.number for trial in journal.trials.values() if trial.config["model"]["hidden_size"] == 12000}
    failed = {trial.number for trial in journal.trials.values() if trial.outcome == "failed"}
    assert failed >= hungry != set()
    assert {journal.trials[number].lost for number in failed} == {1}, (
        "the kernel may kill a neighbour: each has another go"
    )
    study.check(failed=len(failed))


def test_the_head_is_killed_brought_up_again_and_the_study_resumed(bed: Bed, cluster: str) -> None:
    study = SubmittedStudy(bed, cluster, "head", epochs=16)
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
