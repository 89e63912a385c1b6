"""Several hosts on one machine: namespaces with networks, processes and files of their own, each with an SSH server.

A host has its own network (on a bridge that is in a namespace as well: nothing of it touches this machine's), process
numbers, host name, /dev/shm, /tmp/ray and home directory, and shares everything else: the environment that the tests
run in is every host's. Needs root. A host is one process, with which all others in it end, and it ends with the tests'
process, whatever happens to that.

    python tests/cluster/bed.py        makes a laptop, a head and two workers, and opens a shell on the laptop
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[2]
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
NEEDED = ("setpriv", "unshare", "nsenter", "ip", "sshd", "ssh", "ssh-keygen", "rsync")

SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 100
"""

HOST = """
set -e
hostname {name}
mount --bind {folder}/passwd /etc/passwd
mount --bind {home} {folder}/home
mkdir -p /tmp/ray /run/sshd
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
cd {folder}/home
/usr/sbin/sshd -D -e -f {folder}/sshd_config > {home}.sshd.log 2>&1 &
while true; do sleep 3600 & wait $!; done
"""


def why_not() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        return f"needs {', '.join(missing)} (apt install iproute2 openssh-server rsync)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"namespaces cannot be made here: {tried.stderr.decode().strip()}"


class Host:
    """One host of a bed."""

    def __init__(self, bed: Bed, name: str, number: int) -> None:
        self.bed, self.name, self.address = bed, name, f"10.77.0.{number}"
        self.home = bed.folder / name  # as seen from outside; on the host itself it is `bed.home`
        self.link = f"to-{name}"[:15]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switch it on; its files are those that it had."""
        if not self.home.exists():
            self.home.mkdir(parents=True)
            self._install()
        script = HOST.format(name=self.name, home=self.home, folder=self.bed.folder)
        spaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        self.process = subprocess.Popen(
            [*DIES_WITH_US, "unshare", *spaces, "bash", "-c", script], start_new_session=True
        )
        self._wait_until(lambda: len(psutil.Process(self.process.pid).children()) == 1)
        pid = str(self.process.pid)
        self.bed.on_switch("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", pid)
        self.bed.on_switch("ip", "link", "set", self.link, "master", "bridge", "up")
        for command in (
            f"ip addr add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 10.77.0.1",
        ):
            subprocess.run(["nsenter", "-t", pid, "--net", *command.split()], check=True)
        self._wait_until(lambda: self.run("true", "&&", "ss", "-ltn").stdout.find(":22 ") >= 0)

    def _install(self) -> None:
        """The environment of the tests is this host's, and up to date as `cluster/install.sh` sees it."""
        ours = self.home / "tune_rnn"
        ours.mkdir()
        (self.home / ".bashrc").touch()
        (self.home / ".profile").write_text('PATH="$HOME/.local/bin:$PATH"\n')  # as distributions have it
        (ours / "env").symlink_to(sys.prefix)
        (ours / "installed").write_text(self.bed.stamp)

    def run(
        self, *command: str, timeout: float = 300, env: Mapping[str, str] | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as a person who sits there, or has logged in."""
        inside = self.command(" ".join(command), env)
        done = subprocess.run(inside, capture_output=True, text=True, timeout=timeout, check=False)
        said = f"{self.name}: {' '.join(command)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not (check and done.returncode), said
        return done

    def start_command(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The same in the background."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = subprocess.Popen(self.command(" ".join(command), env), text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
        self.bed.commands.append(started)
        return started  # type: ignore[no-any-return]

    def command(self, command: str, env: Mapping[str, str] | None = None) -> list[str]:
        """What runs a shell command there."""
        given = {
            "HOME": str(self.bed.home),
            "USER": "root",
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            **(env or {}),
        }
        variables = [f"{name}={value}" for name, value in given.items()]
        enter = ["nsenter", "-t", str(self.init), "--net", "--mount", "--pid", "--uts", "--ipc"]
        return [*enter, "env", "-i", "--default-signal=INT", *variables, "bash", "-c", f"cd ~ && {command}"]

    @property
    def init(self) -> int:
        """The number of its first process, as seen from here."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()[0].pid

    def kill(self) -> None:
        """Pull the plug."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            gone = ["nsenter", "-t", str(self.bed.switch.pid), "--net", "ip", "link", "delete", self.link]
            subprocess.run(gone, capture_output=True, check=False)  # it may have gone with the host

    def connect(self, on: bool) -> None:
        """Plug the network cable in or out."""
        self.bed.on_switch("ip", "link", "set", self.link, "up" if on else "down")

    def limit_memory(self, size: int) -> None:
        """Have the kernel kill what takes more, from now on and all of this host's processes together.

        With control groups as Linux has had them first, or as it has them now.
        """
        old = Path("/sys/fs/cgroup/memory")
        folder = (old if old.exists() else old.parent) / f"tune-rnn-{self.bed.folder.name}-{self.name}"
        folder.mkdir()
        self.bed.groups.append(folder)
        (folder / ("memory.limit_in_bytes" if old.exists() else "memory.max")).write_text(str(size))
        for process in [psutil.Process(self.init), *psutil.Process(self.init).children(recursive=True)]:
            with suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(process.pid))

    def processes(self, text: str) -> list[str]:
        """Command lines on this host that contain a text."""
        lines = self.run("ps", "-eo", "args").stdout.splitlines()
        return [line for line in lines if text in line]

    def _wait_until(self, condition: object, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, f"{self.name} does not start"
            time.sleep(0.05)


class Bed:
    """A laptop, a head and workers on one network."""

    def __init__(self, workers: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tune-rnn-bed-", dir="/var/tmp"))
        install = PROJECT / "cluster" / "install.sh"
        self.stamp = subprocess.run(["bash", install, "stamp"], capture_output=True, text=True, check=True).stdout
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder))
        self.home = self.folder / "home"
        self.home.mkdir()
        self.groups: list[Path] = []
        self.commands: list[subprocess.Popen[str]] = []
        root, sshd = f"root:x:0:0:root:{self.home}:/bin/bash", "sshd:x:105:65534::/run/sshd:/bin/false"
        (self.folder / "passwd").write_text(f"{root}\n{sshd}\n")
        self.switch = subprocess.Popen([*DIES_WITH_US, "unshare", "--net", "sleep", "infinity"], start_new_session=True)
        time.sleep(0.2)
        made = "ip link add bridge type bridge", "ip addr add 10.77.0.1/24 dev bridge", "ip link set bridge up"
        for command in made:
            self.on_switch(*command.split())
        self.laptop, self.head = Host(self, "laptop", 9), Host(self, "head", 10)
        self.workers = [Host(self, f"worker{number}", 11 + number) for number in range(workers)]

    @property
    def hosts(self) -> list[Host]:
        return [self.laptop, self.head, *self.workers]

    def start(self, *hosts: Host) -> None:
        for host in hosts or self.hosts:
            host.start()

    def on_switch(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.switch.pid), "--net", *command], check=True)

    def cluster_file(self, name: str = "bed", gpus: int = 0, cloud: str = "") -> str:
        """Write `cluster/onprem.yaml` with this bed's addresses, user and key where people write theirs, on the laptop.

        Returns its path there. Workers count so many GPUs, and listen to notices of a cloud as its file has them.
        """
        text = (PROJECT / "cluster" / "onprem.yaml").read_text("utf-8")
        for theirs, ours in (
            ("cluster_name: onprem", f"cluster_name: {name}"),
            ("192.168.1.10 ", f"{self.head.address} "),
            ("[192.168.1.11, 192.168.1.12]", f"[{', '.join(host.address for host in self.workers)}]"),
            ("ssh_user: ubuntu", "ssh_user: root"),
            ("~/.ssh/id_ed25519", str(self.folder / "key")),
            ("ray start --address", f"ray start --num-gpus={gpus} --address"),
            ("tune_rnn.submission.attendant", f"tune_rnn.submission.attendant {cloud}"),
        ):
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        (self.laptop.home / f"cluster-{name}.yaml").write_text(text, "utf-8")
        return f"~/cluster-{name}.yaml"

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
        self.switch.kill()
        self.switch.wait()
        for command in self.commands:
            command.kill()
            if command.stdout and not command.stdout.closed:
                command.communicate()
        for folder in self.groups:
            while (folder / "cgroup.procs").read_text():
                time.sleep(0.05)
            folder.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    if reason := why_not():
        sys.exit(reason)
    bed = Bed()
    try:
        bed.start()
        workers = ", ".join(host.address for host in bed.workers)
        print(f"head {bed.head.address}, workers {workers}, user root, key {bed.folder / 'key'}", flush=True)
        subprocess.run(bed.laptop.command("exec bash -i"), check=False)
    finally:
        bed.close()


if __name__ == "__main__":
    main()
