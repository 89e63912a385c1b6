"""What a cluster's YAML file, as `ray up` takes it, says of its head and of the machines it may come to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.errors import InputError
from tune_rnn.yaml_io import read_yaml

FOR_RAY_UP = "Give a file for `ray up`, such as cluster/onprem.yaml."

RAYS_MAX_WORKERS = 2
"""So many workers does a cluster grow to, where its file does not say."""


@dataclass(frozen=True)
class ClusterFile:
    """A cluster's name, how its head is reached over SSH, and the resources of all machines that it may grow to.

    `promised` is empty where nothing is known of machines but that they are there.
    """

    path: Path
    name: str
    host: str
    user: str
    key: str | None
    promised: tuple[dict[str, float], ...]


def read_cluster(path: str | Path) -> ClusterFile:
    """Read a file for `ray up`; InputError for what is not one, or for a cluster that is not up."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(str(path), "there is no such file", FOR_RAY_UP)
    given = read_yaml(file)
    provider = _section(given, "provider", path)
    auth = _section(given, "auth", path)
    for name in ("cluster_name", "provider.type", "auth.ssh_user"):
        _text(given, name, path)
    host = _head_of(file, provider)
    return ClusterFile(
        path=file,
        name=given["cluster_name"],
        host=host,
        user=auth["ssh_user"],
        key=_key_of(file, auth, provider),
        promised=_promised(given),
    )


def _section(given: Any, name: str, path: str | Path) -> dict[str, Any]:
    section = given.get(name) if isinstance(given, dict) else None
    if not isinstance(section, dict):
        raise InputError(str(path), f"has no section {name}", FOR_RAY_UP)
    return section


def _text(given: Any, dotted: str, path: str | Path) -> None:
    value = given
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value or value.startswith("-"):
        raise InputError(f"{path}: {dotted}", "must be a text", "Write it as `ray up` wants it.", value)


def _head_of(file: Path, provider: Mapping[str, Any]) -> str:
    """The head's address: of machines of one's own it is in the file, and else the cloud knows it."""
    if provider["type"] == "local":
        host = provider.get("head_ip")
        if not isinstance(host, str) or not host or host.startswith("-"):
            raise InputError(f"{file}: provider.head_ip", "must be the head's address", value=host)
        return host
    from ray.autoscaler.sdk import get_head_node_ip

    try:
        return str(get_head_node_ip(str(file)))
    except Exception as error:  # whatever the cloud's library raises
        raise InputError(str(file), f"the head is not to be found ({error})", f"Run `ray up {file}` first.") from error


def _key_of(file: Path, auth: Mapping[str, Any], provider: Mapping[str, Any]) -> str | None:
    """The file of the SSH key; `ray up` makes one for a cloud where none is named."""
    if "ssh_private_key" in auth or provider["type"] == "local":
        key = auth.get("ssh_private_key")
        return str(Path(key).expanduser()) if key else None
    from ray.autoscaler.sdk import bootstrap_config

    filled = bootstrap_config(read_yaml(file))
    return str(Path(filled["auth"]["ssh_private_key"]).expanduser())


def _promised(given: Mapping[str, Any]) -> tuple[dict[str, float], ...]:
    """Resources of the head and of each worker that the cluster may have at once."""
    types = given.get("available_node_types") or {}
    most = given.get("max_workers", RAYS_MAX_WORKERS)
    heads: list[dict[str, float]] = []
    workers: list[dict[str, float]] = []
    for name, node_type in types.items():
        resources = node_type.get("resources") or {}
        wanted = {kind: float(resources[kind]) for kind in ("CPU", "GPU") if kind in resources}
        if name == given.get("head_node_type"):
            heads.append(wanted)
        else:
            workers += [wanted] * node_type.get("max_workers", most)
    return (*heads, *workers[:most])
