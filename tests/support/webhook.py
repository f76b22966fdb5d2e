"""A webhook receiver with scripted answers; it keeps the requests that it got."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "a secret of sixteen"


@dataclass
class Received:
    """A request; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A running receiver.

    Attributes:
        answers: statuses to answer in turn, then 204; a 0 keeps the connection open.
        received: the requests so far.
        over: set when the test ends.
    """

    url: str
    answers: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiver(*answers: int) -> Iterator[Receiver]:
    """Serve on a port of this machine until the block ends."""
    found = Receiver("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.received.append(Received(self.path, headers, body))
            answer = found.answers.pop(0) if found.answers else 204
            if answer == 0:
                found.over.wait(60)
                return
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/hooks/token-in-the-path?key=1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
