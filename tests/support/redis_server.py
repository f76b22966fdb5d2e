"""A Redis on a port of loopback, with the options under test: users, TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from producer.cluster.local import running
from tests.support.inputs import wait_for
from tests.support.programs import program


@contextmanager
def redis_server(*options: str, plain: bool = True) -> Iterator[int]:
    """Yield the port of a Redis with these options; it speaks TLS unless `plain`."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        ports = ("--port", str(port)) if plain else ("--port", "0", "--tls-port", str(port))
        command = [server_program(Path(folder)), *ports, "--save", "", "--dir", folder, *options]
        log = Path(folder, "log")
        with running([*command, "--bind", "127.0.0.1"], {}, log):
            wait_for(lambda: "Ready to accept" in log.read_text(), 20)
            yield port


def server_program(folder: Path) -> str:
    """Return the server's program; Debian's redis-tools has it under another name."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return installed
    link = folder / "redis-server"
    link.symlink_to(program("redis-check-rdb"))
    return str(link)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Certificates:
    """A CA, and a certificate for 127.0.0.1 signed by it."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        folder.mkdir()
        made = cls(folder / "ca.pem", folder / "redis.pem", folder / "redis.key")
        own = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
        ca_key = str(folder / "ca.key")
        _openssl(*own, "-subj", "/CN=test CA", "-keyout", ca_key, "-out", str(made.ca))
        by_ca = ("-CA", str(made.ca), "-CAkey", ca_key, "-subj", "/CN=redis")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
        out = ("-keyout", str(made.key), "-out", str(made.certificate))
        _openssl(*own, *by_ca, *names, *out)
        return made

    @property
    def options(self) -> tuple[str, ...]:
        files = ("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key))
        return (*files, "--tls-ca-cert-file", str(self.ca), "--tls-auth-clients", "no")


def _openssl(*arguments: str) -> None:
    subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)


def client_of(port: int, user: str, password: str) -> redis.Redis:
    return redis.Redis(port=port, username=user, password=password, decode_responses=True)
