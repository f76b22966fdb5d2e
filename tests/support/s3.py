"""A real S3 endpoint over HTTP on loopback, and a proxy that injects faults."""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from moto.server import ThreadedMotoServer

BUCKET = "rankmill-test"
SECRET = "a-secret-that-must-show-nowhere"


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """Start the endpoint and yield its URL."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@dataclass
class Faults:
    """The faults of the next requests of a method, one entry each.

    `throttle`, `expired`, `denied` and `unknown` answer with that error. `reset` closes the
    connection. `lost` closes it after the request is done. `cut` sends half of the answer. None
    passes the request on. With `ignores_conditions` the store ignores If-Match and If-None-Match,
    as some stores do. Requests that ask before they send are counted in `n_asked`.
    """

    planned: dict[str, list[str | None]] = field(default_factory=dict)
    ignores_conditions: bool = False
    lock: Lock = field(default_factory=Lock)
    n_requests: int = 0
    n_asked: int = 0

    def next(self, method: str) -> str | None:
        with self.lock:
            self.n_requests += 1
            waiting = self.planned.get(method)
            return waiting.pop(0) if waiting else None


_ERRORS = {
    "throttle": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "unknown": (501, "NotImplemented"),
}


@contextmanager
def faulty_proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """Start a proxy of the endpoint that injects `faults`, and yield its URL."""
    looking_and_writing = Lock()  # moto's own If-None-Match looks first and writes later

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_expect_100(self) -> bool:
            with faults.lock:
                faults.n_asked += 1
            return super().handle_expect_100()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next(self.command)
            if fault in _ERRORS:
                status, code = _ERRORS[fault]
                self._answer(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
                return
            if fault == "reset":
                self._hang_up()
                return
            upstream = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
            headers = dict(self.headers)
            if faults.ignores_conditions:
                headers.pop("If-Match", None)
                headers.pop("If-None-Match", None)
            is_once = self.command == "PUT" and "If-None-Match" in headers
            with looking_and_writing if is_once else nullcontext():
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
            upstream.close()
            if fault == "lost":
                self._hang_up()
                return
            self._answer(answer.status, dict(answer.getheaders()), content, cut=fault == "cut")

        def _hang_up(self) -> None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False
        ) -> None:
            self.send_response(status)
            length = headers.pop("Content-Length", str(len(content)))
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
