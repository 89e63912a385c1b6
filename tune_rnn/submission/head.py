"""The side of the cluster's head: answers what `tune-rnn submit`, `status` and `stop` ask over SSH.

    python -m tune_rnn.submission.head COMMAND [ARGUMENT …]       a JSON object on the input, one on the output

Only `follow` prints something else: a study's log as it grows.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tune_rnn.data import load_corpus
from tune_rnn.errors import InputError, TuneRnnError
from tune_rnn.experiment import Experiment
from tune_rnn.results.directory import check_storage
from tune_rnn.results.journal import Journal
from tune_rnn.study.study import larger_experiment
from tune_rnn.submission.inspection import DASHBOARD, ask_all, asks_for_token, problems
from tune_rnn.submission.jobs import JobDirectory

HOME = Path.home() / "tune_rnn"
POLL_S = 0.5
STOP_S = 120.0

Answer = dict[str, Any]


def inspect(given: Mapping[str, Any]) -> Answer:
    """Whether the cluster is fit for a study: `versions` are the submitter's."""
    _client()  # what takes jobs has to be there as well
    with _ray():
        answers = ask_all()
    found = problems(answers, given["versions"], given["uses_gpus"])
    if not asks_for_token():
        found.insert(0, "Ray on the head does not ask for a token, so anybody who reaches it runs code there")
    return {"machines": answers, "problems": found}


def start(given: Mapping[str, Any]) -> Answer:
    """Start a study whose files are there, as a Ray job; once, however often it is asked over a bad connection."""
    directory = JobDirectory.of(HOME, given["id"])
    with directory.starting():
        return {"id": given["id"]} if directory.ray_job.exists() else _start(directory)


def _start(directory: JobDirectory) -> Answer:
    os.environ["TUNE_RNN_DATA"] = str(directory.path / "data")
    os.chdir(HOME)
    experiment = Experiment.load(directory.experiment)
    check_storage(experiment.storage)
    found = load_corpus(experiment.task, beside=experiment.beside).sha256
    if found != directory.job.data_sha256:
        rule = f"the data here has sha256 {found[:12]}…, on the submitter's machine {directory.job.data_sha256[:12]}…"
        raise InputError("task", rule, "Install the same versions, or give the data as files: task.corpus.")
    return _submit(directory, "run")


def resume(given: Mapping[str, Any]) -> Answer:
    """Go on with a study that was interrupted or has died, or with a larger budget; says how much it had printed."""
    directory = JobDirectory.of(HOME, given["id"])
    with directory.starting():
        if _state_of_process(directory) == "running":
            raise InputError(given["id"], "is running", "Attach to it with `tune-rnn submit CLUSTER --follow`.")
        run = directory.run
        if run is not None and not run.experiment.exists():
            run = None
        if run is not None:  # what is refused is refused here, and how the study has ended stays written down
            larger_experiment(run, Journal(run.journal), given["overrides"])
        printed = directory.log.stat().st_size if directory.log.exists() else 0
        before = directory.exit_status
        directory.forget_exit()
        try:
            return _submit(directory, "resume" if run else "run", *given["overrides"]) | {"printed": printed}
        except BaseException:
            if before is not None:
                directory.note_exit(before)
            raise


def follow(identity: str, offset: int) -> None:
    """Print a study's log from a byte on, until the study has ended."""
    directory = JobDirectory.of(HOME, identity)
    next_look = 0.0
    while True:
        ended = directory.exit_status is not None
        if time.monotonic() >= next_look:
            ended = ended or _state(directory) != "running"
            next_look = time.monotonic() + 5
        if directory.log.exists():
            with directory.log.open("rb") as log:
                log.seek(offset)
                while piece := log.read(1 << 16):
                    offset += sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        if ended:
            return
        time.sleep(POLL_S)


def outcome(given: Mapping[str, Any]) -> Answer:
    """How a study stands, and where its results are."""
    directory = JobDirectory.of(HOME, given["id"])
    return _summary(directory) | {"job": json.loads((directory.path / "job.json").read_text("utf-8"))}


def status(given: Mapping[str, Any]) -> Answer:
    """The machines that are there, and the studies that were submitted."""
    import ray

    with _ray():
        nodes = [
            {"address": node["NodeManagerAddress"], "alive": node["Alive"], "resources": node["Resources"]}
            for node in ray.nodes()
        ]
    return {"machines": nodes, "studies": [_summary(directory) for directory in JobDirectory.all(HOME)]}


def stop(given: Mapping[str, Any]) -> Answer:
    """End a study as Ctrl-C would, and wait for it: what was done is kept. Of a name's, the latest that runs."""
    found = JobDirectory.named(HOME, given["id"])
    directory = next((one for one in found if _state(one) == "running"), found[0])
    if _state(directory) == "running":
        with directory.starting():  # what is being started can be ended after that
            if directory.ray_job.exists():
                _client().stop_job(_ray_id(directory))
        deadline = time.monotonic() + STOP_S
        while _state(directory) == "running" and time.monotonic() < deadline:
            time.sleep(POLL_S)
    return _summary(directory)


def _summary(directory: JobDirectory) -> Answer:
    """A study in a few words: its state, how many trials, the best loss."""
    run = directory.run
    answer: Answer = {"id": directory.path.name, "state": _state(directory)}
    there = run is not None and run.experiment.exists()
    answer |= {"exit_status": directory.exit_status, "run": str(run.path) if run and there else None}
    answer["place"] = run.place if run and there else None
    if run is None or not run.journal.exists():
        return answer
    try:
        trials = Journal(run.journal)
    except InputError:  # a damaged one; whoever goes on with it is told
        return answer
    best = trials.best_trial
    ended = sum(trial.outcome != "" for trial in trials.trials.values())
    return answer | {"trials": len(trials.trials), "ended": ended, "best_loss": best.best_loss if best else None}


def _state(directory: JobDirectory) -> str:
    """ "running", "ended", or "died" for one that was killed."""
    return "running" if directory.is_starting else _state_of_process(directory)


def _state_of_process(directory: JobDirectory) -> str:
    if directory.exit_status is not None:
        return "ended"
    if directory.is_held:
        return "running"
    if not directory.ray_job.exists():
        return "died"
    try:  # it may be about to begin
        job = _client().get_job_info(_ray_id(directory))
    except (InputError, OSError, RuntimeError):  # of a Ray that is gone
        return "died"
    return "died" if job.status.is_terminal() else "running"


def _submit(directory: JobDirectory, *command: str) -> Answer:
    arguments = [sys.executable, "-m", "tune_rnn.submission.job", str(directory.path), *command]
    identity = _client().submit_job(entrypoint=f"cd {shlex.quote(str(HOME))} && exec {shlex.join(arguments)}")
    directory.ray_job.write_text(identity, "utf-8")
    return {"id": directory.path.name}


def _ray_id(directory: JobDirectory) -> str:
    return directory.ray_job.read_text("utf-8")


def _client() -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(DASHBOARD)
    except (OSError, RuntimeError) as error:  # OSError: requests' errors are some
        raise _no_ray() from error


@contextmanager
def _ray() -> Iterator[None]:
    """Joined to the Ray that runs here."""
    import logging

    import ray

    try:
        ray.init(address="auto", logging_level=logging.CRITICAL, log_to_driver=False)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        raise _no_ray() from error
    try:
        yield
    finally:
        ray.shutdown()


def _no_ray() -> InputError:
    return InputError("the head", "no Ray answers there", "Run `ray up`, which starts it anew.")


COMMANDS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "inspect": inspect,
    "start": start,
    "resume": resume,
    "outcome": outcome,
    "status": status,
    "stop": stop,
}


def main(command: str, *arguments: str) -> None:
    if command == "follow":
        follow(arguments[0], int(arguments[1]))
        return
    given = json.loads(sys.stdin.read() or "{}")
    try:
        answer = COMMANDS[command](given)
    except InputError as error:
        answer = {"error": {"exit_status": 2, "where": error.where, "rule": error.rule, "remedy": error.remedy}}
    except TuneRnnError as error:
        answer = {"error": {"exit_status": error.exit_status, "message": str(error)}}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
