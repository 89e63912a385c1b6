"""`cluster/aws.yaml` and `cluster/aws_setup.yaml` against moto, which stands in for Amazon's services.

No machine is booted: `ssh` and `rsync` are stand-ins too. In `loop`, which is this file run as a program in a network
and process namespace of its own, they start Ray where a machine would have, so that Ray's autoscaler has its way.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
MINE, BUCKET = "203.0.113.7/32", "my-results"
ADDRESSES = "172.31.0.0/16"
"""Those of moto's machines, by which they know each other."""

SSH = f"""#!{sys.executable}
import json, os, subprocess, sys
host = next(number for number, one in enumerate(sys.argv) if one.startswith("ubuntu@"))
ip, command = sys.argv[host].partition("@")[2], " ".join(sys.argv[host + 1:])
with open(os.environ["STAND_IN_LOG"], "a") as log:
    print(json.dumps([sys.argv[host], command]), file=log)
if not os.environ.get("STAND_IN_ACTS"):
    sys.exit()
if "ray start" in command:
    if "ray start --head" in command:
        import boto3
        public = {{"Name": "ip-address", "Values": [ip]}}
        found = boto3.client("ec2", region_name="us-west-2").describe_instances(Filters=[public])
        ip = found["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    command = command.replace("ray start", "ray start --node-ip-address=" + ip)
elif "install.sh head" not in command:
    sys.exit()
sys.exit(subprocess.run(["env", "-u", "TMPDIR", "bash", "-c", command]).returncode)
"""

RSYNC = f"""#!{sys.executable} -S
import os, shutil, sys
_, _, path = sys.argv[-1].partition(":")
if path.startswith("~/ray_bootstrap_"):
    shutil.copy(sys.argv[-2], os.path.expanduser(path))
"""

TASK = """
import pathlib, sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=1, max_retries=-1)
def train(folder):
    folder = pathlib.Path(folder)
    (folder / f"began-on-{ray.util.get_node_ip_address()}").touch()
    while not (folder / "end").exists():
        time.sleep(0.1)
    return "trained"
print(ray.get(train.remote(sys.argv[2])))
"""


CREATE = """
import json, sys
from ray.autoscaler._private.providers import _get_node_provider
config = json.load(open(sys.argv[1]))
provider = _get_node_provider(config["provider"], config["cluster_name"])
tags = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-node-name": "a worker"}
provider.create_node(config["available_node_types"]["worker"]["node_config"], tags, 1)
"""


class Account:
    """An account at Amazon with nothing in it but what `aws_setup.yaml` makes, and a person's own machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self.home = folder / "home"
        self.checkout = self.home / "checkout"
        self.log, self.port, self.endpoint = folder / "ssh.log", port, f"http://127.0.0.1:{port}"
        stand_ins = folder / "bin"
        for directory in (self.home, stand_ins, folder / "tmp"):
            directory.mkdir()
        for name, text in (("ssh", SSH), ("rsync", RSYNC)):
            (stand_ins / name).write_text(text, "utf-8")
            (stand_ins / name).chmod(0o755)
        (self.home / ".bashrc").write_text(f"export PATH={stand_ins}:$PATH\n", "utf-8")
        self.environment = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"),
            "PATH": f"{stand_ins}:{sys.prefix}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "STAND_IN_LOG": str(self.log),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AUTOSCALER_NODE_START_WAIT_S": "5",
            "AUTOSCALER_NODE_SSH_INTERVAL_S": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.recording = folder / "requests.jsonl"
        moto = {
            "MOTO_ENABLE_RECORDING": "1",
            "MOTO_RECORDER_FILEPATH": str(self.recording),
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
            "MOTO_ENABLE_AMI_VALIDATION": "1",
            "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
        }
        command = [f"{sys.prefix}/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
        with (folder / "moto.log").open("wb") as output:
            self.server = subprocess.Popen(command, env=self.environment | moto, stdout=output, stderr=output)
        self.ec2 = self.client("ec2")

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
        return boto3.client(service, region_name="us-west-2", endpoint_url=self.endpoint, **keys)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def set_up(self) -> None:
        """What cluster/README.md has people do once."""
        wait("moto answers", self.answers)
        given = {"Address": MINE, "Bucket": BUCKET}
        formation = self.client("cloudformation")
        formation.create_stack(
            StackName="tune-rnn",
            TemplateBody=(PROJECT / "cluster" / "aws_setup.yaml").read_text("utf-8"),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (stack,) = formation.describe_stacks(StackName="tune-rnn")["Stacks"]
        (output,) = stack["Outputs"]
        assert output["OutputKey"] == "SecurityGroupId"
        self.group = output["OutputValue"]
        images = self.ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
        self.image = next(one["ImageId"] for one in images if one.get("Platform") != "windows")

    def check_out(self, **changed: Any) -> None:
        """A copy of the repository, as far as a cluster needs it, with what people fill in in aws.yaml."""
        unwanted = shutil.ignore_patterns("__pycache__")
        for name in ("cluster", "tune_rnn"):
            shutil.copytree(PROJECT / name, self.checkout / name, ignore=unwanted)
        for name in ("constraints.txt", "pyproject.toml", ".gitignore"):
            shutil.copy(PROJECT / name, self.checkout / name)
        text = (PROJECT / "cluster" / "aws.yaml").read_text("utf-8")
        for theirs, ours in (
            ("ami-00000000000000000", self.image),
            ("sg-00000000000000000", self.group),
            *((f"{key}: {before}\n", f"{key}: {after}\n") for key, (before, after) in changed.items()),
        ):
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        (self.checkout / "cluster" / "aws.yaml").write_text(text, "utf-8")

    def ray(self, *arguments: str, **environment: str) -> str:
        """Run `ray ARGUMENTS` on the person's machine; returns what it prints."""
        done = subprocess.run(
            [f"{sys.prefix}/bin/ray", *arguments],
            cwd=self.checkout,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=80,
            check=False,
        )
        assert done.returncode == 0, f"ray {' '.join(arguments)} exited {done.returncode}\n{done.stdout}"
        return done.stdout

    def machines(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Machines that cost something, all or the head or the workers."""
        states = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
        kinds = [{"Name": "tag:ray-node-type", "Values": [kind]}] if kind else []
        found = self.ec2.describe_instances(Filters=[states, *kinds])
        return [one for reservation in found["Reservations"] for one in reservation["Instances"]]

    def asked(self) -> list[tuple[str, str]]:
        """What has been run over SSH: where, and the command."""
        lines = self.log.read_text("utf-8").splitlines() if self.log.exists() else []
        return [(host, command) for host, command in map(json.loads, lines)]

    def requests(self) -> list[dict[str, str]]:
        """The requests to start machines, as they were sent."""
        lines = [json.loads(line) for line in self.recording.read_text("utf-8").splitlines()]
        bodies = [base64.b64decode(one["body"]).decode() if one["body_encoded"] else one["body"] for one in lines]
        sent = [dict(urllib.parse.parse_qsl(body)) for body in bodies]
        return [one for one in sent if one.get("Action") == "RunInstances"]

    def start_worker(self) -> list[dict[str, Any]]:
        """Have Ray's provider start a worker, as the autoscaler does on the head, and with what the head was given."""
        command = [sys.executable, "-c", CREATE, str(self.home / "ray_bootstrap_config.yaml")]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return self.machines("worker")

    def close(self) -> None:
        self.server.kill()
        self.server.wait()


def wait(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return found


def loop(folder: Path) -> None:
    """A task wants a GPU, its machine is reclaimed, it gets another one, and that is given back. In a namespace."""
    (folder / "ray").mkdir()
    for command in (
        "ip link set lo up",
        f"ip route add local {ADDRESSES} dev lo",
        "mount -t tmpfs tmpfs /dev/shm",
        "mkdir -p /tmp/ray",
        f"mount --bind {folder}/ray /tmp/ray",
    ):
        subprocess.run(command.split(), check=True)
    account = Account(folder, 5555)
    account.set_up()
    account.check_out(idle_timeout_minutes=("5", "0.1"))
    (account.home / "tune_rnn").mkdir()
    (account.home / "tune_rnn" / "env").symlink_to(sys.prefix)
    (account.home / "tune_rnn" / "source").symlink_to(account.checkout)
    stamp = ["bash", str(account.checkout / "cluster" / "install.sh"), "stamp"]
    installed = subprocess.run(stamp, capture_output=True, check=True).stdout
    (account.home / "tune_rnn" / "installed").write_bytes(installed)
    account.ray("up", "-y", "cluster/aws.yaml", STAND_IN_ACTS="1")
    (head,) = account.machines()
    print("the head is up", flush=True)

    environment = account.environment | {"RAY_AUTH_MODE": "token"}
    task = [sys.executable, "-c", TASK, f"{head['PrivateIpAddress']}:6379", str(folder)]
    driver = subprocess.Popen(task, env=environment, stdout=subprocess.PIPE, text=True)
    (first,) = wait("a worker is asked for", lambda: account.machines("worker"))
    assert (first["InstanceType"], first["InstanceLifecycle"]) == ("g6.xlarge", "spot")
    wait("the task begins", (folder / f"began-on-{first['PrivateIpAddress']}").exists)
    print("a worker is up", flush=True)

    account.ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    switch_off(first["PrivateIpAddress"])
    (second,) = wait("another one is asked for", lambda: account.machines("worker"))
    wait("the task begins again", (folder / f"began-on-{second['PrivateIpAddress']}").exists)
    print("another worker is up", flush=True)

    (folder / "end").touch()
    assert driver.communicate(timeout=60)[0].splitlines()[-1] == "trained"
    wait("the idle worker is given back", lambda: not account.machines("worker"))
    print("no worker is left", flush=True)
    assert [one["InstanceId"] for one in account.machines()] == [head["InstanceId"]]


def switch_off(ip: str) -> None:
    """End all processes of a machine, as Amazon does with a spot instance that it wants back."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if command[0].endswith("/raylet") and f"--node_ip_address={ip}" in command:
            for one in [process, *process.children(recursive=True)]:
                one.kill()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account that is set up, and a checkout with the cluster's file filled in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Account(tmp_path_factory.mktemp("aws"), port)
    try:
        made.set_up()
        made.check_out()
        yield made
    finally:
        made.close()


def test_the_firewall_opens_ssh_to_one_address(account: Account) -> None:
    (group,) = account.ec2.describe_security_groups(GroupIds=[account.group])["SecurityGroups"]
    rules = {rule["IpProtocol"]: rule for rule in group["IpPermissions"]}
    assert set(rules) == {"tcp", "-1"}
    assert (rules["tcp"]["FromPort"], rules["tcp"]["ToPort"]) == (22, 22)
    assert [one["CidrIp"] for one in rules["tcp"]["IpRanges"]] == [MINE]
    assert rules["tcp"]["UserIdGroupPairs"] == []
    assert rules["-1"]["IpRanges"] == []
    assert [one["GroupId"] for one in rules["-1"]["UserIdGroupPairs"]] == [account.group]


def test_the_role_is_the_heads_alone(account: Account) -> None:
    iam = account.client("iam")
    (profile,) = iam.list_instance_profiles()["InstanceProfiles"]
    assert profile["InstanceProfileName"] == "tune-rnn-head"
    (role,) = profile["Roles"]
    assert iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"] == []
    assert sorted(iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]) == ["autoscaling", "results"]
    policy = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="results")["PolicyDocument"]
    resources = [statement["Resource"] for statement in policy["Statement"]]
    assert resources == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]


def test_ray_up_asks_for_what_the_file_promises_and_ray_down_leaves_nothing(
    account: Account,
) -> None:
    groups = account.ec2.describe_security_groups()["SecurityGroups"]
    account.ray("up", "-y", "cluster/aws.yaml")
    (head,) = account.machines()
    (worker,) = account.start_worker()
    for machine, kind, name in ((head, "m6i.large", "head"), (worker, "g6.xlarge", "worker")):
        check_machine(account, machine, kind, name)
    assert head["IamInstanceProfile"]["Arn"].endswith(":instance-profile/tune-rnn-head")
    assert "IamInstanceProfile" not in worker
    assert "InstanceLifecycle" not in head
    assert worker["InstanceLifecycle"] == "spot"
    for_head, for_worker = account.requests()
    assert not any(key.startswith("InstanceMarketOptions") for key in for_head)
    assert for_worker["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert for_worker["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "terminate"
    for request in (for_head, for_worker):
        assert request["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert request["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert account.ec2.describe_security_groups()["SecurityGroups"] == groups, "Ray has opened something"

    commands = [command for _, command in account.asked()]
    assert any("cluster/install.sh head" in command for command in commands)
    assert all("RAY_AUTH_MODE=token " in command for command in commands if " ray st" in command)

    account.ray("down", "-y", "cluster/aws.yaml")
    assert account.machines() == []
    assert [one for one in account.ec2.describe_volumes()["Volumes"] if one["State"] == "in-use"] == []


def check_machine(account: Account, machine: dict[str, Any], kind: str, name: str) -> None:
    """What head and worker have in common."""
    assert machine["InstanceType"] == kind
    assert machine["ImageId"] == account.image
    assert [one["GroupId"] for one in machine["SecurityGroups"]] == [account.group]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert machine["KeyName"] == "ray-autoscaler_us-west-2"
    tags = {one["Key"]: one["Value"] for one in machine["Tags"]}
    expected = {"project": "tune-rnn", "ray-cluster-name": "tune-rnn", "ray-user-node-type": name}
    assert expected.items() <= tags.items()
    (disk,) = machine["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/sda1"
    assert disk["Ebs"]["DeleteOnTermination"]
    (volume,) = account.ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["VolumeType"]) == (150, "gp3")


def test_a_reclaimed_worker_is_replaced_and_an_idle_one_given_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("loop")
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    command = [*apart, sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    logs = sorted(folder.glob("ray/session_2*/logs/monitor.*"))
    told = "\n".join(f"{log.name}: {log.read_text('utf-8')[-2000:]}" for log in logs)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{told}"
    assert done.stdout.splitlines()[-1] == "no worker is left"


if __name__ == "__main__":
    loop(Path(sys.argv[1]))
