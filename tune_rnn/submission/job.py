"""The process of a submitted study on the cluster's head, started as a Ray job: it outlives the submitter's terminal.

python -m tune_rnn.submission.job DIRECTORY [run | resume] [KEY=VALUE …]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tune_rnn import cli
from tune_rnn.errors import TuneRnnError
from tune_rnn.results.directory import NOTE
from tune_rnn.study.cluster import PROMISED
from tune_rnn.submission.jobs import JobDirectory


def main(folder: str, command: str, *overrides: str) -> int:
    """Run or resume the study, with all that it prints in its log; returns and writes down the exit status."""
    directory = JobDirectory(Path(folder))
    _print_to(directory.log)
    job = directory.job
    os.environ[PROMISED] = json.dumps(job.promised)
    os.environ["TUNE_RNN_DATA"] = str(directory.path / "data")
    if command == "run":
        os.environ[NOTE] = str(directory.run_note)
        arguments = ["run", str(directory.experiment)]
    else:
        assert directory.run is not None, "the head has looked"
        arguments = ["resume", directory.run.place]
    status = TuneRnnError.exit_status  # of an error that is none of ours, whose traceback is in the log
    with directory.held():
        if directory.exit_status is not None:  # started twice, as the answer to the first request was lost
            return directory.exit_status
        try:
            status = cli.main([*arguments, *overrides])
        finally:
            directory.note_exit(status)
    return status


def _print_to(log: Path) -> None:
    """Send this process's output, and that of all it starts, to the end of a file."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
