"""A Redis that refuses every command after a chosen number, like one that has become full."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_COMMAND = re.compile(rb"(?:^|\r\n)\*\d+\r\n\$\d+\r\n([A-Za-z]+)(?=\r\n)")
# The commands that every new connection sends.
_GREETINGS = {b"HELLO", b"CLIENT", b"INFO", b"PING", b"SELECT"}


@dataclass
class Denying:
    """A proxy on a Unix socket; commands are refused when `n_allowed` of them have passed."""

    url: str
    n_allowed: int | None = None
    n_seen: int = 0
    refused: list[bytes] = field(default_factory=list)

    def denies(self, commands: list[bytes]) -> bool:
        if not set(commands) - _GREETINGS:
            return False
        self.n_seen += 1
        is_denied = self.n_allowed is not None and self.n_seen > self.n_allowed
        self.refused += commands if is_denied else []
        return is_denied


@contextmanager
def denying_redis(broker_url: str, folder: Path) -> Iterator[Denying]:
    """Yield a proxy of a Redis on a Unix socket."""
    target = broker_url.removeprefix("redis+socket://")
    place = folder / "denying.sock"
    proxy = Denying(f"redis+socket://{place}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()

        def accept() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                there = socket.socket(socket.AF_UNIX)
                there.connect(target)
                for run, arguments in ((_ask, (proxy, client, there)), (_answer, (client, there))):
                    threading.Thread(target=run, args=arguments, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield proxy
        server.shutdown(socket.SHUT_RDWR)


def _ask(proxy: Denying, client: socket.socket, there: socket.socket) -> None:
    """Forward one client's requests, each of one or several commands."""
    with client, suppress(OSError):
        while request := client.recv(2**20):
            commands = [name.upper() for name in _COMMAND.findall(request)]
            if proxy.denies(commands):
                client.sendall(b"-OOM command not allowed\r\n" * len(commands))
            else:
                there.sendall(request)
        there.shutdown(socket.SHUT_RDWR)


def _answer(client: socket.socket, there: socket.socket) -> None:
    with there, suppress(OSError):
        while answer := there.recv(2**20):
            client.sendall(answer)
