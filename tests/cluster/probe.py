"""Asks every port of a host what it answers to somebody without, or with a wrong, token; prints JSON.

python probe.py HOST PORT,PORT,… [TOKEN]
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator

import grpc

HTTP = (
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/api/version"),
    ("GET", "/api/jobs/"),
    ("GET", "/api/v0/tasks"),
    ("GET", "/nodes?view=summary"),
    ("GET", "/logs/"),
    ("POST", "/api/jobs/"),
    ("POST", "/api/job_agent/jobs/"),
    ("POST", "/get_or_create_runtime_env"),
    ("GET", "/api/local_raylet_healthz"),
)
"""Pages of Ray's dashboard, of its agents and of its exporters of metrics."""

SUBMISSION = json.dumps({"entrypoint": "touch /tmp/ray/broken-in"}).encode()

GRPC = (
    "/grpc.health.v1.Health/Check",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeInfoGcsService/RegisterNode",
    "/ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "/ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.NodeManagerService/ShutdownRaylet",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.CoreWorkerService/KillActor",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.RayletDriver/Init",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.LogService/ListLogs",
)
"""Services of the head's store, the nodes, their object stores, processes and agents, and of Ray's client."""


def ask_http(host: str, port: int, token: str) -> Iterator[tuple[str, str, str]]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    for method, path in HTTP:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request(method, path, SUBMISSION if method == "POST" else None, headers)
            response = connection.getresponse()
            yield f"{method} {path}", str(response.status), response.read(200_000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return  # it does not speak HTTP
        finally:
            connection.close()


def ask_grpc(host: str, port: int, token: str) -> Iterator[tuple[str, str, str]]:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=3)
        except grpc.FutureTimeoutError:
            return  # it does not speak gRPC
        for method in GRPC:
            try:
                answer = channel.unary_unary(method)(b"", timeout=5, metadata=metadata)
                yield method, "OK", repr(answer)
            except grpc.RpcError as error:
                yield method, error.code().name, str(error.details())


def main(host: str, ports: str, token: str = "") -> None:
    found = {}
    for port in map(int, ports.split(",")):
        answers = [*ask_http(host, port, token), *ask_grpc(host, port, token)]
        found[port] = [{"asked": asked, "status": status, "said": said} for asked, status, said in answers]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
