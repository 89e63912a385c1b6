"""A server on loopback that speaks S3 and can refuse to, for tests."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import boto3
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ObjectStorage:
    """moto's server, behind a door that answers 503 while `refuses` is true."""

    def __init__(self) -> None:
        self.refuses = False
        self.server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)

    def __enter__(self) -> Self:
        self.server.start()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.door.getsockname())
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.door.close()
        self.server.stop()

    def bucket(self, name: str) -> str:
        """Make a bucket; returns the URL of a prefix in it, without a query, and the query."""
        url = "http://{}:{}".format(*self.server.get_host_and_port())
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=name)
        return f"s3://{name}/results?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def _answer(self) -> None:
        with suppress(OSError):  # the door is closed
            while True:
                caller, _ = self.door.accept()
                threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        with suppress(OSError), caller:
            if self.refuses:
                caller.recv(1 << 16)
                caller.sendall(BUSY)
                return
            with socket.create_connection(self.server.get_host_and_port()) as server:
                threading.Thread(target=_pump, args=(server, caller), daemon=True).start()
                self._pump_while_open(caller, server)

    def _pump_while_open(self, caller: socket.socket, server: socket.socket) -> None:
        """As `_pump`, until this storage refuses: connections are kept open for many requests."""
        while piece := caller.recv(1 << 16):
            if self.refuses:
                caller.sendall(BUSY)
                return
            server.sendall(piece)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
