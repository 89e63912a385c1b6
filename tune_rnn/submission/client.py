"""`tune-rnn submit`, `status` and `stop`: the side of the person's own machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tune_rnn.data import CORPORA, load_corpus
from tune_rnn.data.cache import cache_folders, first_writable
from tune_rnn.data.corpora import find_corpus
from tune_rnn.display import Display, plural
from tune_rnn.errors import InputError, StudyFailed, StudyInterrupted, TuneRnnError
from tune_rnn.experiment import Experiment
from tune_rnn.results import directory
from tune_rnn.results.directory import RunDirectory
from tune_rnn.results.mirror import is_remote
from tune_rnn.results.packing import pack, paths_of
from tune_rnn.results.provenance import versions
from tune_rnn.submission.cluster_file import ClusterFile, read_cluster
from tune_rnn.submission.inspection import PACKAGES
from tune_rnn.submission.jobs import Job
from tune_rnn.submission.remote import ROOT, UNREACHABLE, Remote, Unreachable

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long `submit` tries to reach again a head whose connection has dropped."""

ENDS = {0: "finished", StudyInterrupted.exit_status: "stopped"}
"""How a study has ended, by the exit status of its command; "failed" by any other."""

SUBMITTED = "submitted.json"
"""In a copy that was brought back: which study it is one of."""

NOT_BROUGHT = ("ray/", "lock.json", "*.new")
"""Of a run's directory: checkpoints, which stay where the study can be resumed."""


def submit(cluster: str, file: str, overrides: Sequence[str]) -> str:
    """Run a study on a cluster, follow it, bring the result back; returns the closing text."""
    experiment = Experiment.load(file, overrides)
    described = read_cluster(cluster)
    corpus = load_corpus(experiment.task, beside=experiment.beside)
    remote = Remote(described)
    _check(remote, experiment)
    identity = f"{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory(prefix="tune-rnn-submit-") as folder:
        _pack(Path(folder), experiment, corpus.sha256, identity, described)
        remote.send(Path(folder), f"{ROOT}/jobs/{identity}")
    _patiently(lambda: remote.ask("start", given={"id": identity}), _again(remote, identity))
    _say(f"{identity}: submitted. It goes on without this terminal: Ctrl-C only ends the following of its log.")
    return attend(remote, identity)


def resume(cluster: str, identity: str | None, overrides: Sequence[str]) -> str:
    """Go on with a submitted study that was interrupted or has died, by default the latest, and follow it."""
    remote = Remote(read_cluster(cluster))
    identity = identity or _latest(remote)
    resumed = remote.ask("resume", given={"id": identity, "overrides": list(overrides)})
    return attend(remote, resumed["id"], resumed["printed"])


def follow(cluster: str, identity: str | None) -> str:
    """Attach to a submitted study again, by default the latest."""
    remote = Remote(read_cluster(cluster))
    return attend(remote, remote.ask("outcome", given={"id": identity or _latest(remote)})["id"])


def attend(remote: Remote, identity: str, offset: int = 0) -> str:
    """Show a study's log until it ends, and bring the result back."""
    again = _again(remote, identity)
    try:
        _follow(remote, identity, offset, again)
    except KeyboardInterrupt:
        end = f"`tune-rnn stop {remote.cluster.path} {identity}`"
        print(file=sys.stderr)
        raise StudyInterrupted(f"The study goes on. {again} attaches to it again, {end} ends it.") from None
    found = _patiently(lambda: remote.ask("outcome", given={"id": identity}), again)
    if found["state"] == "running":
        raise TuneRnnError(f"The head does not show the study's log any more. {again} attaches to the study again.")
    brought = _bring_back(remote, found, again) if found["run"] else None
    where = f" What there is of it is in {brought}." if brought else ""
    go_on = f"`tune-rnn submit {remote.cluster.path} --resume {identity}` goes on with it."
    if found["exit_status"] == 0 and brought:
        return f"Brought back to {brought}"
    if found["exit_status"] == InputError.exit_status:
        raise InputError(identity, "was refused on the cluster, for the reason above")
    if found["exit_status"] == StudyInterrupted.exit_status:
        raise StudyInterrupted(f"The study was interrupted.{where} {go_on}")
    what = "has failed" if found["state"] == "ended" else "was killed on the cluster"
    raise StudyFailed(f"The study {what}.{where} {go_on}")


def _again(remote: Remote, identity: str) -> str:
    return f"`tune-rnn submit {remote.cluster.path} --follow {identity}`"


def _patiently(ask: Callable[[], T], again: str) -> T:
    """Try for long what can be done twice: the connection may have dropped."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except Unreachable as error:
            if time.monotonic() > deadline:
                raise _unreachable(again) from error
        time.sleep(2)


def _unreachable(again: str) -> TuneRnnError:
    return TuneRnnError(f"The head cannot be reached any more. {again} attaches to the study again.")


def _follow(remote: Remote, identity: str, offset: int, again: str) -> None:
    lost_at: float | None = None
    while True:
        command = remote.command("follow", identity, str(offset))
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as ssh:
            assert ssh.stdout is not None
            try:
                while piece := os.read(ssh.stdout.fileno(), 1 << 16):
                    lost_at, offset = None, offset + len(piece)
                    sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
            except BaseException:
                ssh.terminate()
                raise
        if ssh.returncode != UNREACHABLE:
            return
        lost_at = lost_at or time.monotonic()
        if time.monotonic() - lost_at > PATIENCE_S:
            raise _unreachable(again)
        time.sleep(2)


def status(cluster: str) -> str:
    """The machines of a cluster, and the studies that were submitted to it."""
    remote = Remote(read_cluster(cluster))
    found = remote.ask("status")
    alive = [one["resources"] for one in found["machines"] if one["alive"]]
    processors, gpus = (sum(one.get(kind, 0.0) for one in alive) for kind in ("CPU", "GPU"))
    lines = [f"{remote.cluster.name}: {plural(len(alive), 'machine')}, {processors:g} processors, {gpus:g} GPUs"]
    for one in found["studies"]:
        state = ENDS.get(one["exit_status"], "failed") if one["state"] == "ended" else one["state"]
        line = f"  {one['id']}: {state}"
        if "trials" in one:
            line += f", {one['ended']} of {plural(one['trials'], 'trial')} ended"
        if one.get("best_loss") is not None:
            line += f", best loss {one['best_loss']:.4f}"
        lines.append(line + (f", in {one['place']}" if one["place"] else ""))
    return "\n".join(lines)


def stop(cluster: str, identity: str | None) -> str:
    """End a submitted study, by default the latest that runs; what was done is kept on the cluster."""
    remote = Remote(read_cluster(cluster))
    identity = identity or _latest(remote, "running")
    stopped = remote.ask("stop", given={"id": identity})
    identity = stopped["id"]
    if stopped["state"] == "running":
        raise TuneRnnError(f"{identity} has not ended yet.")
    submit = f"tune-rnn submit {cluster}"
    return f"{identity} has ended. `{submit} --follow {identity}` brings back what there is, `--resume` goes on."


def _latest(remote: Remote, state: str = "") -> str:
    studies = [one["id"] for one in remote.ask("status")["studies"] if state in ("", one["state"])]
    if not studies:
        rule = "no study is running there" if state else "no study has been submitted to it"
        raise InputError(str(remote.cluster.path), rule, "`tune-rnn submit CLUSTER FILE` submits one.")
    return str(studies[-1])


def _check(remote: Remote, experiment: Experiment) -> None:
    """Refuse a cluster that is not fit for the study, before anything is sent there."""
    ours = {name: version for name, version in versions(PACKAGES).items() if version and name != "python"}
    given = {"versions": ours, "uses_gpus": experiment.resources.may_use_gpu}
    found = remote.ask("inspect", given=given)
    machines = found["machines"]
    processors = sum(one["resources"]["CPU"] for one in machines)
    gpus = sum(one["resources"]["GPU"] for one in machines)
    _say(f"{remote.cluster.name}: {plural(len(machines), 'machine')}, {processors:g} processors, {gpus:g} GPUs")
    if found["problems"]:
        remedy = f"`ray up {remote.cluster.path}` installs what is pinned, and starts Ray with a token."
        raise InputError(str(remote.cluster.path), "; ".join(found["problems"]), remedy)


def _pack(folder: Path, experiment: Experiment, sha256: str, identity: str, cluster: ClusterFile) -> None:
    """Write what the head needs: the experiment with its data beside it, and what is to be said of the job."""
    paths, packed = paths_of(experiment), pack(experiment, folder)
    _copy_named_corpus(experiment, folder / "data")
    storage = experiment.storage
    is_theirs = is_remote(storage) or Path(storage).is_absolute()  # a place that the head sees as well
    packed = packed if is_theirs else packed.replace("storage", f"results/{identity}")
    (folder / "experiment.yaml").write_text(packed.to_yaml(), "utf-8")
    local = "results" if is_theirs else storage
    here = str(Path(local).expanduser().absolute())
    Job(identity, experiment.name, sha256, paths, here, cluster.promised).write(folder)


def _copy_named_corpus(experiment: Experiment, to: Path) -> None:
    """The files of a corpus with a name, so that the head need not have them, or a way to download them."""
    name = experiment.task.corpus
    if not isinstance(name, str) or name not in CORPORA or not CORPORA[name].files:
        return
    folder = to / name.replace("-", "_")
    folder.mkdir(parents=True)
    sources = find_corpus(name, first_writable(cache_folders(None)))
    for file, source in zip(CORPORA[name].files, sources, strict=True):
        assert isinstance(source.content, Path), "only pydoc is none"
        shutil.copyfile(source.content, folder / file.name)


def _bring_back(remote: Remote, found: dict[str, Any], again: str) -> Path:
    """Copy a run here, all but its checkpoints, with the paths of the data as they are here."""
    job = found["job"]
    run = _copy_of(job)
    _patiently(lambda: remote.fetch(found["run"], run.path, NOT_BROUGHT), again)
    experiment = Experiment.of_run(run.experiment).replace("storage", job["storage"])
    for key, value in job["paths"].items():
        experiment = experiment.replace(key, value)
    directory.write_atomically(RunDirectory(run.path).experiment, experiment.to_yaml())
    return run.path


def _copy_of(job: dict[str, Any]) -> RunDirectory:
    """Where a study has been brought back to before, or else a new directory."""
    for note in Path(job["storage"]).glob(f"*/{SUBMITTED}"):
        if json.loads(note.read_text("utf-8"))["id"] == job["id"]:
            return RunDirectory(note.parent)
    run = directory.create(job["storage"], job["name"])
    directory.write_atomically(run.path / SUBMITTED, json.dumps({"id": job["id"]}))
    return run


def _say(text: str) -> None:
    Display().say(text)
