"""Commands and files on a cluster's head, over SSH: OpenSSH and rsync, whose configuration and agent people have.

Nothing secret is in a command's arguments: the cluster's token stays in its file on the nodes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_rnn.errors import InputError, TuneRnnError
from tune_rnn.submission.cluster_file import ClusterFile

UNREACHABLE = 255
"""What `ssh` exits with where it is the connection that failed."""

ROOT = "tune_rnn"
"""The directory of everything of ours on the head, in the home directory of the user that logs in."""


class Unreachable(InputError):
    """No connection to the head."""


class Remote:
    """The head of a cluster."""

    def __init__(self, cluster: ClusterFile) -> None:
        self.cluster = cluster
        self.options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=accept-new"]
        self.options += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR"]
        if cluster.key:
            self.options += ["-i", cluster.key, "-o", "IdentitiesOnly=yes"]

    def ask(self, *arguments: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What `python -m tune_rnn.submission.head` answers to some arguments and a JSON object on its input."""
        done = subprocess.run(
            self.command(*arguments), input=json.dumps(given or {}), capture_output=True, text=True, check=False
        )
        if done.returncode == UNREACHABLE:
            raise self.unreachable(done.stderr)
        try:
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            raise InputError(str(self.cluster.path), *_not_installed(done.stderr)) from None
        if "error" in answer:
            raise _error_of(answer["error"])
        return answer

    def command(self, *arguments: str) -> list[str]:
        """An `ssh` that runs our module on the head."""
        python = f"~/{ROOT}/env/bin/python"
        text = f"RAY_AUTH_MODE=token {python} -m tune_rnn.submission.head {shlex.join(arguments)}"
        return ["ssh", *self.options, f"{self.cluster.user}@{self.cluster.host}", text]

    def send(self, folder: Path, to: str) -> None:
        """Copy a folder's content into a directory below the home directory."""
        self._rsync(["--mkpath", f"{folder}/", f"{self._target}:{to}/"])

    def fetch(self, path: str, to: Path, without: Sequence[str] = ()) -> None:
        """Copy a directory's content from the head into one that is there."""
        self._rsync([*(f"--exclude={pattern}" for pattern in without), f"{self._target}:{path}/", f"{to}/"])

    @property
    def _target(self) -> str:
        return f"{self.cluster.user}@{self.cluster.host}"

    def _rsync(self, arguments: Sequence[str]) -> None:
        shell = shlex.join(["ssh", *self.options])
        try:
            done = subprocess.run(
                ["rsync", "--archive", "--compress", "--partial", "-e", shell, *arguments],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"RSYNC_OLD_ARGS": "0"},
            )
        except FileNotFoundError:
            raise InputError(
                "rsync", "is not installed here", "Install it, for example with apt install rsync."
            ) from None
        if done.returncode == UNREACHABLE:
            raise self.unreachable(done.stderr)
        if done.returncode:
            raise TuneRnnError(f"rsync with {self.cluster.host} failed: {done.stderr.strip()}")

    def unreachable(self, message: str) -> Unreachable:
        rule = f"{self._target} cannot be reached over SSH ({_last_line(message)})"
        remedy = f"Run `ray up {self.cluster.path}` first, or see to the network."
        return Unreachable(str(self.cluster.path), rule, remedy)


def _not_installed(message: str) -> tuple[str, str]:
    remedy = "Run `ray up` again, which installs it, and ends what still runs there."
    return f"the head has no tune_rnn that answers ({_last_line(message)})", remedy


def _last_line(message: str) -> str:
    """What a program ended with; warnings come before it."""
    return (message.strip().splitlines() or ["no answer"])[-1]


def _error_of(error: Mapping[str, Any]) -> TuneRnnError:
    """An error that the head reports, with its exit status."""
    if error["exit_status"] == InputError.exit_status:
        return InputError(error["where"], error["rule"], error["remedy"])
    return TuneRnnError(error["message"])
