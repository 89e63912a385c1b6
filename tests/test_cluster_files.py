"""The files in `cluster/`: each is what its system takes, asks for a token everywhere, and opens nothing to others.

No cloud is asked: Ray's schemas, the discovery document of Google's client and CloudFormation's rules are on this
machine. What is done with the files is tested in `tests/cluster`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _fits

import tune_rnn
from tune_rnn.study.cluster import PROMISED, Slots
from tune_rnn.study.tuning import _resources_of_slot

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")
)
FOR_RAY_UP = ["aws.yaml", "gcp.yaml", "onprem.yaml"]
ALL = sorted(path.name for path in CLUSTER.iterdir() if path.is_file())


def text_of(name: str) -> str:
    return (CLUSTER / name).read_text("utf-8")


def load(name: str) -> Any:
    return yaml.safe_load(text_of(name))


def strings(value: Any) -> Iterator[str]:
    """All texts in nested lists and mappings, keys included."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from strings(key)
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    else:
        yield str(value)


def without_comments(name: str) -> str:
    """A file's text, on one line where a backslash or a folded text goes on, without its comments."""
    joined = text_of(name).replace("\\\n", " ")
    if name.endswith(".yaml"):
        return "\n".join(one for document in yaml.safe_load_all(joined) for one in strings(document))
    return "\n".join(line for line in joined.splitlines() if not line.lstrip().startswith("#"))


def test_every_file_is_one_that_is_tested() -> None:
    tested = {"README.md", "Dockerfile", "aws_setup.yaml", "install.sh", "kubernetes.yaml", "slurm.sh", *FOR_RAY_UP}
    assert set(ALL) == tested


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_ray_takes_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_machines_come_and_go_with_the_work(name: str) -> None:
    config = load(name)
    types = config["available_node_types"]
    head, worker = types.pop(config["head_node_type"]), types.pop("worker")
    assert not types
    assert head["resources"] == {"CPU": 0}
    assert worker["resources"]["GPU"] == 1
    assert worker["resources"]["CPU"] >= 1
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"]
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False
    assert config["auth"]["ssh_user"]


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_all_do_alike(name: str) -> None:
    config, known = load(name), load("onprem.yaml")
    for key in ("file_mounts", "rsync_exclude", "rsync_filter", "cluster_synced_files"):
        assert config[key] == known[key], key
    assert config["head_start_ray_commands"] == known["head_start_ray_commands"]
    cloud = {"aws.yaml": " aws", "gcp.yaml": " gcp"}.get(name, "")
    module = "tune_rnn.submission.attendant"
    ours = [command.replace(module, module + cloud) for command in known["worker_start_ray_commands"]]
    if cloud:
        ours.insert(1, f"~/tune_rnn/env/bin/python -m {module}{cloud} --before-ray")
    assert config["worker_start_ray_commands"] == ours
    assert config["head_setup_commands"][0] == known["head_setup_commands"][0]
    assert config["worker_setup_commands"][-1] == known["worker_setup_commands"][-1]


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_a_worker_is_started_for_a_trial(name: str) -> None:
    """A cloud's machine is started for what its type is said to have, and for nothing else."""
    worker = load(name)["available_node_types"]["worker"]["resources"]
    for cpu, gpu in ((1.0, 1.0), (4.0, 1.0), (0.5, 0.25)):
        wanted: Any = [_resources_of_slot(Slots(4, cpu, gpu), slot).bundles for slot in range(4)]
        assert all(_fits(worker, bundle) for bundles in wanted for bundle in bundles)
        assert len({str(bundles) for bundles in wanted}) == 4, "Ray tells slots apart"


@pytest.mark.parametrize("name", [name for name in ALL if name != "README.md"])
def test_ray_starts_and_stops_with_a_token_alone(name: str) -> None:
    text = without_comments(name)
    lines = [line for line in text.splitlines() if re.search(r"\bray (start|stop)\b", line)]
    assert bool(lines) == (name in (*FOR_RAY_UP, "slurm.sh"))
    for line in lines:
        for found in re.finditer(r"\bray (start|stop)\b", line):
            assert "RAY_AUTH_MODE=token" in line[: found.start()], line
    assert "RAY_AUTH_MODE=disabled" not in text


@pytest.mark.parametrize("name", [name for name in ALL if name != "README.md"])
def test_the_dashboard_is_nobody_elses(name: str) -> None:
    """KubeRay's operator must reach it from its own pod: there the token and the network policy guard it."""
    text = without_comments(name)
    assert set(re.findall(r"--?dashboard-host[= ](\S+)", text)) <= {"127.0.0.1"}
    for line in text.splitlines():
        if "ray start --head" in line or line.lstrip().startswith("--head"):
            assert "--dashboard-host=127.0.0.1" in line
    assert "0.0.0.0" not in text


@pytest.mark.parametrize("name", ALL)
def test_no_file_holds_a_secret(name: str) -> None:
    text = text_of(name)
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{32,}|eyJ[\w-]{20,}", text)
    assert not re.search(r"(?i)(password|secret|token)\w*[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+/]{20,}", text)
    assert not re.search(r"RAY_AUTH_TOKEN=", text)


@pytest.mark.parametrize("name", ALL)
def test_versions_are_those_of_the_package(name: str) -> None:
    text = text_of(name)
    for package in ("ray", "torch"):
        for found in re.findall(rf"(?i)\b{package}(?:version:|:|==)\s*v?(\d[\w.]*)", text):
            assert found == PINNED[package], package
    for found in re.findall(r"tune-rnn:(\d[\w.]*)", text):
        assert found == tune_rnn.__version__
    for found in re.findall(r"FROM python:(\d+\.\d+)", text):
        supported = (ROOT / "pyproject.toml").read_text("utf-8")
        assert f"Programming Language :: Python :: {found}" in supported


def test_amazons_machines_are_what_was_promised() -> None:
    types = load("aws.yaml")["available_node_types"]
    head, worker = types["head"]["node_config"], types["worker"]["node_config"]
    assert "InstanceMarketOptions" not in head
    assert worker["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert head["IamInstanceProfile"] == {"Name": f"{load('aws.yaml')['cluster_name']}-head"}
    assert "IamInstanceProfile" not in worker
    for config in (head, worker):
        assert config["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        (disk,) = config["BlockDeviceMappings"]
        assert disk["Ebs"] == {"VolumeSize": 150, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        assert {one["ResourceType"] for one in config["TagSpecifications"]} == {"instance", "volume"}
        assert all(one["Tags"] == [{"Key": "project", "Value": "tune-rnn"}] for one in config["TagSpecifications"])
        assert config["SecurityGroupIds"] == ["sg-00000000000000000"]  # a missing one would be made, open to everybody
        assert config["ImageId"] == "ami-00000000000000000"


def test_cloudformation_finds_no_fault() -> None:
    command = [Path(sys.executable).with_name("cfn-lint"), CLUSTER / "aws_setup.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_amazons_firewall_opens_ssh_to_one_address() -> None:
    setup = load("aws_setup.yaml")
    group, within = (setup["Resources"][name]["Properties"] for name in ("Group", "GroupWithin"))
    assert group["SecurityGroupIngress"] == [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": {"Ref": "Address"}}
    ]
    assert within["GroupId"] == within["SourceSecurityGroupId"]
    allowed = re.compile(setup["Parameters"]["Address"]["AllowedPattern"])
    assert "Default" not in setup["Parameters"]["Address"]
    assert allowed.fullmatch("203.0.113.7/32")
    for everybody in ("0.0.0.0/0", "203.0.113.7", "0.0.0.0/1"):
        assert not allowed.fullmatch(everybody)


def test_amazons_head_may_do_what_the_autoscaler_does_and_no_more() -> None:
    resources = load("aws_setup.yaml")["Resources"]
    statements = [
        (action, statement)
        for resource in resources.values()
        if resource["Type"] == "AWS::IAM::Policy"
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        for action in (statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    ]
    actions = {action for action, _ in statements}
    assert {action for action in actions if action.startswith("ec2:")} == {
        "ec2:DescribeInstances",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
    }
    assert all(action.startswith(("ec2:", "s3:")) and "*" not in action for action in actions)
    for action, statement in statements:
        where = json.dumps(statement["Resource"])
        if action == "ec2:TerminateInstances":
            assert "aws:ResourceTag/ray-cluster-name" in statement["Condition"]["StringEquals"]
        if action == "ec2:RunInstances" and ":instance/" in where:
            assert "aws:RequestTag/ray-cluster-name" in statement["Condition"]["StringEquals"]
            assert statement["Condition"]["StringEquals"]["ec2:MetadataHttpTokens"] == "required"
        if action == "ec2:CreateTags":
            assert statement["Condition"]
        if action.startswith("s3:"):
            assert "${Bucket}" in where
        assert (statement["Resource"] == "*") == (action == "ec2:DescribeInstances")


def test_googles_client_knows_every_key() -> None:
    from googleapiclient import discovery_cache

    document = Path(discovery_cache.__file__).parent / "documents" / "compute.v1.json"
    schemas = json.loads(document.read_text("utf-8"))["schemas"]
    for name, node_type in load("gcp.yaml")["available_node_types"].items():
        check_schema(node_type["node_config"], {"$ref": "Instance"}, schemas, name)


def check_schema(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> None:
    """Refuse what a discovery document does not know: keys, kinds, and values outside an enumeration."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"]]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    kind = kinds[schema["type"]] if schema.get("format") != "int64" else (int, str)
    assert isinstance(value, kind), f"{where}: {value!r} is not of type {schema['type']}"
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, one in value.items():
            found = known.get(key) or others
            assert found, f"{where} has no key {key}"
            check_schema(one, found, schemas, f"{where}.{key}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            check_schema(one, schema["items"], schemas, f"{where}[{number}]")
    elif "enum" in schema:
        assert value in schema["enum"], f"{where}: {value}"


def test_googles_machines_are_what_was_promised() -> None:
    config = load("gcp.yaml")
    types, project = config["available_node_types"], config["provider"]["project_id"]
    head, worker = types["head"]["node_config"], types["worker"]["node_config"]
    assert worker["scheduling"] == {
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
    }
    (account,) = head["serviceAccounts"]
    assert account["email"] == f"tune-rnn-head@{project}.iam.gserviceaccount.com"
    for absent, machine in (("scheduling", head), ("serviceAccounts", worker)):
        assert absent not in machine
    for machine in (head, worker):
        assert machine["tags"] == {"items": ["tune-rnn"]}
        metadata = {one["key"]: one["value"] for one in machine["metadata"]["items"]}
        assert metadata["block-project-ssh-keys"] == "TRUE"
        assert metadata["ssh-keys"].startswith(f"{config['auth']['ssh_user']}:ssh-ed25519 ")
        (disk,) = machine["disks"]
        assert (disk["boot"], disk["autoDelete"]) == (True, True)
        assert config["provider"]["availability_zone"] in disk["initializeParams"]["diskType"]
        (network,) = machine["networkInterfaces"]
        assert f"/{config['provider']['region']}/".removeprefix("/") in network["subnetwork"]


KUBERNETES_KEYS = {
    "RayJob": {
        *("submissionMode", "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"),
        "rayClusterSpec",
    },
    "rayClusterSpec": {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
        "workerGroupSpecs",
    },
    "authOptions": {"mode", "secretName"},
    "autoscalerOptions": {"version", "idleTimeoutSeconds"},
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "template": {"metadata", "spec"},
    "pod": {"securityContext", "containers", "volumes", "automountServiceAccountToken", "tolerations"},
    "container": {"name", "image", "env", "securityContext", "resources", "ports", "volumeMounts"},
}
"""What KubeRay 1.6 and Kubernetes call things; of these, what the file uses."""


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    """The objects in kubernetes.yaml by their kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text_of("kubernetes.yaml"))}


def test_kubernetes_knows_every_key(kubernetes: dict[str, Any]) -> None:
    versions = {kind: one["apiVersion"] for kind, one in kubernetes.items()}
    assert versions == {
        "PersistentVolumeClaim": "v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "RayJob": "ray.io/v1",
    }
    job = kubernetes["RayJob"]["spec"]
    cluster = job["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    used = {
        "RayJob": [job],
        "rayClusterSpec": [cluster],
        "authOptions": [cluster["authOptions"]],
        "autoscalerOptions": [cluster["autoscalerOptions"]],
        "headGroupSpec": [cluster["headGroupSpec"]],
        "workerGroupSpecs": [worker],
        "template": [cluster["headGroupSpec"]["template"], worker["template"]],
        "pod": [cluster["headGroupSpec"]["template"]["spec"], worker["template"]["spec"]],
    }
    used["container"] = [one for pod in used["pod"] for one in pod["containers"]]
    for name, places in used.items():
        for place in places:
            assert set(place) <= KUBERNETES_KEYS[name], name
    assert job["entrypoint"].startswith("tune-rnn run ")
    assert cluster["rayVersion"] == PINNED["ray"]
    for pod in used["pod"]:
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }


def test_the_autoscaler_reads_kuberays_groups(kubernetes: dict[str, Any]) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    derived = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "n", "namespace": "default"}, "spec": spec})
    head, worker = (derived["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0
    assert (worker["resources"]["CPU"], worker["resources"]["GPU"]) == (4, 1)
    assert (worker["min_workers"], worker["max_workers"]) == (0, 4)
    assert derived["idle_timeout_minutes"] == 5
    (container,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    (promised,) = [one["value"] for one in container["env"] if one["name"] == PROMISED]
    assert json.loads(promised) == [{"CPU": 4, "GPU": 1}] * worker["max_workers"]


def test_kubernetes_has_the_token_and_keeps_others_out(kubernetes: dict[str, Any]) -> None:
    cluster = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    name = cluster["authOptions"]["secretName"]
    guarded = kubernetes["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert guarded.items() <= group["template"]["metadata"]["labels"].items()
        (container,) = group["template"]["spec"]["containers"]
        assert container["env"][:2] == [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "auth_token"}}},
        ]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    for rule in kubernetes["NetworkPolicy"]["spec"]["ingress"]:
        assert all(one["podSelector"]["matchLabels"] for one in rule["from"])


def test_the_images_environment_is_the_pinned_one() -> None:
    text = text_of("Dockerfile")
    assert "pip install --no-cache-dir -c constraints.txt '.[cluster]'" in text
    (copied,) = re.findall(r"^COPY (constraints.*) \./$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for name in copied.split())
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000"]


STAND_IN = r"""#!/usr/bin/env bash
name="$(basename "$0")"
printf '%s\0' "$name" "$@" "--environment--" > "$RECORD/$name-$$-$RANDOM"
env -0 >> "$(ls -t "$RECORD/$name-$$-"* | head -n 1)"
"""

BEHAVIOUR = {
    "srun": """
while [[ "$1" == --* ]]; do shift; done
[[ "$1" == hostname ]] && echo 10.0.0.5 && exit
[[ "$1" == bash ]] && { [[ -z "${SRUN_FAILS:-}" ]] || exit 1; stat -c %a "$RAY_AUTH_TOKEN_PATH" > "$RECORD/mode"; }
[[ "$1" == bash ]] && cp "$RAY_AUTH_TOKEN_PATH" "$RECORD/token"
exec "$@"
""",
    "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
    "ray": """
[[ "$1" != health-check ]] || exec test -e "$RECORD/ready"
touch "$RECORD/ready" "$RECORD/joined-$$"
exec sleep 600
""",
    "python": 'until (($(ls "$RECORD" | grep -c ^joined) > 1)); do sleep 0.02; done',
    "tune-rnn": """
touch "$RECORD/training"
[[ -z "${STUDY_TAKES:-}" ]] || exec sleep "$STUDY_TAKES"
exit "${STUDY_EXITS:-0}"
""",
}


class SlurmJob:
    """`cluster/slurm.sh` as a batch script, where Slurm, Ray and tune-rnn write down what they are asked."""

    def __init__(self, folder: Path, what: str = "study.yaml", **environment: str) -> None:
        self.home, self.record = folder / "home", folder / "record"
        programs = self.home / "tune_rnn" / "env" / "bin"
        programs.mkdir(parents=True)
        self.record.mkdir()
        for name, behaviour in BEHAVIOUR.items():
            (programs / name).write_text(STAND_IN + behaviour + "\n", "utf-8")
            (programs / name).chmod(0o755)
        (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n', "utf-8")
        given = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "RECORD": str(self.record),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_CPUS_PER_TASK": "8",
        }
        command = ["bash", str(CLUSTER / "slurm.sh"), what, "budget.trials=4"]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=given | environment, start_new_session=True, **pipes)

    def end(self) -> int:
        """Wait for its end; returns its exit status. Nothing that it started goes on, and the token is gone."""
        output, _ = self.process.communicate(timeout=30)
        assert not list(self.home.glob(".tune-rnn-*")), output
        ps = ["ps", "-o", "stat=,args=", "-s", str(self.process.pid)]
        left = subprocess.run(ps, capture_output=True, text=True, check=False).stdout.splitlines()
        assert [line for line in left if not line.startswith("Z")] == []
        return self.process.returncode

    def calls(self, name: str) -> list[tuple[list[str], dict[str, str]]]:
        """Arguments and environment of each call of a program."""
        found = []
        for file in self.record.glob(f"{name}-*"):
            words = file.read_text("utf-8").rstrip("\0").split("\0")
            split = words.index("--environment--")
            found.append((words[1:split], dict(word.split("=", 1) for word in words[split + 1 :])))
        return found


def test_slurms_script_is_sound() -> None:
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=True)


def test_slurm_runs_a_study_on_all_nodes(tmp_path: Path) -> None:
    job = SlurmJob(tmp_path)
    assert job.end() == 0
    address = "10.0.0.5:24711"
    ((study, environment),) = job.calls("tune-rnn")
    assert study == ["run", "study.yaml", "budget.trials=4", "--address", address]
    starts = [arguments for arguments, _ in job.calls("ray") if arguments[0] == "start"]
    (head,) = [arguments for arguments in starts if "--head" in arguments]
    assert {"--node-ip-address=10.0.0.5", "--port=24711", "--include-dashboard=false"} <= set(head)
    (worker,) = [arguments for arguments in starts if "--head" not in arguments]
    assert f"--address={address}" in worker
    steps = [arguments for arguments, _ in job.calls("srun")]
    (on_workers,) = [arguments for arguments in steps if f"--address={address}" in arguments]
    assert {"--nodes=2", "--exclude=node1"} <= set(on_workers)
    assert any(arguments[-2:] == ["-rf", "/tmp/ray-4711"] and "--nodes=3" in arguments for arguments in steps)
    for arguments in (head, worker):
        assert {"--block", "--num-cpus=8", "--temp-dir=/tmp/ray-4711"} <= set(arguments)
    ((_, joined),) = [(arguments, arguments[-2:]) for arguments, _ in job.calls("python")]
    assert joined == [address, "3"]
    for _, environment in job.calls("ray"):
        assert environment["RAY_AUTH_MODE"] == "token"


def test_slurm_resumes_a_run(tmp_path: Path) -> None:
    (tmp_path / "results" / "study").mkdir(parents=True)
    job = SlurmJob(tmp_path, "results/study")
    assert job.end() == 0
    ((arguments, _),) = job.calls("tune-rnn")
    assert arguments[:2] == ["resume", "results/study"]


def test_slurm_keeps_the_token_to_the_user(tmp_path: Path) -> None:
    job = SlurmJob(tmp_path)
    assert job.end() == 0
    assert (job.record / "mode").read_text("utf-8").strip() == "600"
    token = (job.record / "token").read_text("utf-8")
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    calls = [call for name in BEHAVIOUR for call in job.calls(name)]
    assert len(calls) >= 8
    for arguments, environment in calls:
        assert not any(token in word for word in (*arguments, *environment.values()))
        assert "RAY_AUTH_TOKEN" not in environment


@pytest.mark.parametrize(
    ("environment", "status"), [({"STUDY_EXITS": "3"}, 3), ({"SRUN_FAILS": "1"}, 1)], ids=["study", "ray"]
)
def test_slurm_ends_all_where_something_fails(tmp_path: Path, environment: dict[str, str], status: int) -> None:
    assert SlurmJob(tmp_path, **environment).end() == status


def test_slurm_lets_the_study_write_down_where_it_is(tmp_path: Path) -> None:
    job = SlurmJob(tmp_path, STUDY_TAKES="600")
    while not (job.record / "training").exists():
        assert job.process.poll() is None
    job.process.terminate()
    assert job.end() == 143
