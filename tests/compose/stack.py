"""The whole stack of docker-compose.yml, under a name and secrets of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rankmill.settings import CHECKOUT

# Short, so that a test sees a worker hang.
STALL_S = 20
REVISION = "0123456789abcdef0123456789abcdef01234567"
_FLOWER_USER = "ops"
_ROLES = ("WORKER", "PRODUCER", "BEAT", "FLOWER", "MONITOR")


@dataclass(frozen=True)
class Stack:
    """Commands of `docker compose` on one project; its variables are in an env file."""

    folder: Path
    project: str = field(default_factory=lambda: f"rankmill-{secrets.token_hex(3)}")
    password: str = field(default_factory=lambda: secrets.token_hex(16))

    def write_env(self, **variables: str) -> None:
        """`.env.example` with what it leaves open filled in."""
        lines = (CHECKOUT / ".env.example").read_text().splitlines()
        filled = {
            "COMPOSE_PROFILES": "cpu",
            **{f"REDIS_PASSWORD_{role}": self.password for role in _ROLES},
            "GRAFANA_PASSWORD": self.password,
            "RANKMILL_FLOWER_BASIC_AUTH": f"{_FLOWER_USER}:{self.password}",
            "FLOWER_PORT": "0",
            "RANKMILL_VERSION": "test",
            "IMAGE_REVISION": REVISION,
            "IMAGE_CREATED": "2026-11-28T00:00:00Z",
            "IMAGE_SOURCE": "https://example.com/rankmill.git",
            "RANKMILL_STALL_S": str(STALL_S),
            "RANKMILL_WINDOW_PAIRS": "256",  # progress is reported after each
            **variables,
        }
        kept = [line for line in lines if line.partition("=")[0] not in filled]
        text = "\n".join([*kept, *(f"{name}={value}" for name, value in filled.items())])
        self._env.write_text(text + "\n")

    @property
    def _env(self) -> Path:
        return self.folder / "compose.env"

    @property
    def flower_login(self) -> tuple[str, str]:
        return _FLOWER_USER, self.password

    def try_compose(
        self, *arguments: str, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [
            *("docker", "compose", "--project-name", self.project, "--env-file", str(self._env)),
            *arguments,
        ]
        environment = {name: os.environ[name] for name in os.environ if _is_dockers(name)}
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run `docker compose` and return its output; a failure shows all of it."""
        done = self.try_compose(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def cli(self, *arguments: str) -> str:
        """`rankmill ARGUMENTS` as a user of the stack runs it."""
        return self.compose("run", "--rm", "--no-deps", "-T", "cli", *arguments).strip()

    def python(self, code: str, *arguments: str) -> str:
        """Python in a container that runs already and sees what the workers see."""
        return self.compose("exec", "-T", "control", "python", "-c", code, *arguments).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        containers = self.compose("ps", "--all", "--quiet", service).split()
        assert len(containers) == 1, f"{service}: {containers}"
        found: list[dict[str, Any]] = json.loads(
            subprocess.run(
                ["docker", "inspect", containers[0]], check=True, capture_output=True, text=True
            ).stdout
        )
        return found[0]

    def containers(self) -> list[str]:
        """Every container of the project, whatever its profile."""
        asked = ["--filter", f"label=com.docker.compose.project={self.project}"]
        done = subprocess.run(
            ["docker", "ps", "--all", "--quiet", *asked], check=True, capture_output=True, text=True
        )
        return done.stdout.split()

    def services(self) -> list[str]:
        return sorted(self.compose("ps", "--services").split())

    def kill(self, service: str) -> int:
        """Kill a container's first process; Docker does not count `docker kill` as a crash."""
        pid = int(self.inspect(service)["State"]["Pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def health(self, service: str) -> str:
        return str(self.inspect(service)["State"]["Health"]["Status"])

    def address(self, service: str, port: int) -> str:
        """Where a published port answers on this machine."""
        return "http://" + self.compose("port", service, str(port)).strip()


def check_docker() -> None:
    """Fail the test if no Docker Engine with Compose answers."""
    if shutil.which("docker") is None:
        pytest.fail("docker is not installed")
    said = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True)
    if said.returncode or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.fail(f"no Docker Engine with Compose v2 answers: {said.stderr}")


def _is_dockers(name: str) -> bool:
    return name in ("PATH", "HOME") or name.startswith(("DOCKER_", "BUILDKIT_", "XDG_"))


def wait_until(condition: Callable[[], object], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
