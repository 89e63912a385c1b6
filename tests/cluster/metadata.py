"""Stands in for Amazon's metadata service, on a host that has its address: says that the machine is to be taken back.

python metadata.py FILE: what the file holds is the notice; while it is not there, there is none. A token is asked for.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "a token for a minute"


class Service(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        is_ours = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(*((200, TOKEN) if is_ours else (400, "")))

    def do_GET(self) -> None:
        notice = Path(sys.argv[1])
        if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self.answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and notice.exists():
            self.answer(200, notice.read_text("utf-8"))
        else:
            self.answer(404, "")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("169.254.169.254", 80), Service).serve_forever()
