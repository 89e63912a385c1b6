"""The shortest way through a cluster's life: up, a study, a worker killed, a wrong token, down."""

from __future__ import annotations

from bed import Bed
from studies import SubmittedStudy, end_of_ray, ray_down, ray_up, workers_join


def test_a_cluster_in_short(bed: Bed) -> None:
    cluster = bed.cluster_file("smoke")
    ray_up(bed, cluster)
    workers_join(bed)
    study = SubmittedStudy(bed, cluster, "smoke", "scheduler.algorithm=none", epochs=20)
    study.wait_for_checkpoints()
    bed.workers[0].kill()
    stranger = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    asked = bed.laptop.run(f"timeout 40 ray status --address {bed.head.address}:6379", env=stranger)
    assert asked.returncode != 0
    assert "Active" not in asked.stdout
    said = study.finish()
    assert "12 trials, 6 at a time" in said
    assert "goes on from epoch" in said
    study.check()
    ray_down(bed, cluster)
    end_of_ray(bed.head)  # the workers' takes most of a minute: see test_onprem.py
