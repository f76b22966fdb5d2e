"""Flower as `rankmill flower` starts it, with its pages and its REST API."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

from producer.cluster.local import running
from tests.support.inputs import wait_for

LOGIN = "night-shift:twelve-monkeys"


@contextmanager
def flower(folder: Path, *options: str) -> Iterator[str]:
    """Run `rankmill flower` with its log in flower.log, and yield its address."""
    log = folder / "flower.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "producer.cli", "flower", "--port", "0", *options]
    environment = {"RANKMILL_FLOWER_BASIC_AUTH": LOGIN, "RANKMILL_LOG_FORMAT": "json"}
    with running(command, environment, log):
        wait_for(lambda: "Visit me at" in log.read_text())
        (port,) = re.findall(r"Visit me at http://127\.0\.0\.1:(\d+)", log.read_text())
        yield f"http://127.0.0.1:{port}"


def with_login(url: str, login: str = LOGIN) -> str:
    return url.replace("://", f"://{login}@")


def rows(driver: webdriver.Chrome, table: str) -> list[dict[str, str]]:
    """Return the rows that a table of a page shows now, by the names of its columns."""
    found: list[dict[str, str]] = driver.execute_script(
        """
        const heads = [...document.querySelectorAll('#' + arguments[0] + ' thead th')];
        return [...document.querySelectorAll('#' + arguments[0] + ' tbody tr')].map(row =>
            Object.fromEntries([...row.cells].map((cell, n) =>
                [(heads[n] || {}).textContent || n, cell.innerText.trim()])));
        """,
        table,
    )
    return found


def ask(url: str, login: str | None = LOGIN, post: Any = None) -> tuple[int, str]:
    """Return the status and the text of an answer; with `post` that of a POST of this JSON."""
    request = urllib.request.Request(url, None if post is None else json.dumps(post).encode())
    if login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
