"""Celery's Flower by itself, as a client of Redis; a login so that it answers questions."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.cluster.local import running
from tests.support.inputs import wait_for

_LOGIN = "user:dashboard"


@dataclass(frozen=True)
class Dashboard:
    address: str

    def text(self, path: str) -> str:
        request = urllib.request.Request(self.address + path)
        login = base64.b64encode(_LOGIN.encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: str = answer.read().decode()
        return content

    def json(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(path))
        return found


@contextmanager
def flower(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Dashboard]:
    """Run Flower on the broker of the environment, with its log in flower.log."""
    log = folder / "flower.log"
    options = ("--address=127.0.0.1", "--port=0", f"--basic-auth={_LOGIN}")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", *options]
    with running(command, environment or {}, log):
        wait_for(lambda: "Visit me at" in log.read_text(), 30)
        (port,) = re.findall(r"Visit me at http://127\.0\.0\.1:(\d+)", log.read_text())
        yield Dashboard(f"http://127.0.0.1:{port}")
