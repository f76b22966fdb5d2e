"""Flower as this cluster's dashboard: never without a password, and only for looking unless told.

It runs in this process, so that its lines are ours and no password stands on a command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rankmill import logs
from rankmill.errors import InputError
from rankmill.settings import CHECKOUT, Settings

_COLUMNS = "uuid,name,kwargs,state,result,runtime,worker,received"
# Seconds: a shard takes from one to thousands.
_RUNTIME_BUCKETS = (1, 3, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_MAX_TASKS = 20_000  # some 50 MB; what was before is forgotten
_SAVE_EVERY_MS = 60_000
_FORGET_WORKER_S = 24 * 3600
_MIN_PASSWORD = 8  # characters


@dataclass(frozen=True)
class Dashboard:
    """Where Flower listens and what it may do.

    Attributes:
        history: the file in which it keeps what it has seen, or None to forget it at its end.
        allow_control: whether it may submit, revoke and shut down.
    """

    address: str
    port: int
    history: Path | None
    allow_control: bool

    def options(self) -> list[str]:
        """Flower's command line."""
        options = {
            "address": self.address,
            "port": self.port,
            "read-only": not self.allow_control,
            "tasks-columns": _COLUMNS,
            "task-runtime-metric-buckets": ",".join(map(str, _RUNTIME_BUCKETS)),
            "max-tasks": _MAX_TASKS,
            "purge-offline-workers": _FORGET_WORKER_S,
            "conf": os.devnull,  # else a flowerconfig.py that lies about could change all of this
            "logging": "none",
        }
        if self.history is not None:
            options |= {"persistent": True, "db": self.history}
            options |= {"state-save-interval": _SAVE_EVERY_MS}
        return [f"--{name}={value}" for name, value in options.items()]


def serve(dashboard: Dashboard, settings: Settings) -> None:
    """Run Flower until it is told to stop.

    Raises:
        InputError: it is not installed, has no password, or cannot keep its history.
    """
    logins = checked_logins(settings)
    _check_history(dashboard.history)
    if find_spec("flower") is None:
        raise InputError("Flower is not installed: pip install 'rankmill[flower]'")
    # Not the set-up of Flower that this shell may have: it could open what must stay shut.
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        del os.environ[name]
    os.environ["FLOWER_BASIC_AUTH"] = logins
    os.chdir(CHECKOUT)
    logs.set_up(settings)
    from celery.bin.celery import celery  # hundreds of milliseconds

    celery(["-A", "tasks", "flower", *dashboard.options()], prog_name="celery")


def checked_logins(settings: Settings) -> str:
    """As Flower takes them.

    Raises:
        InputError: there are none, or one would let in whoever guesses it.
    """
    if settings.flower_basic_auth is None:
        raise InputError(
            "RANKMILL_FLOWER_BASIC_AUTH is not set, and Flower does not start without a password: "
            "set it to user:password"
        )
    logins = settings.flower_basic_auth.get_secret_value()
    for number, login in enumerate(logins.split(","), start=1):
        user, _, password = login.partition(":")
        wrong = None
        if not user or not password:
            wrong = "is not user:password (a password has no comma)"
        elif len(password) < _MIN_PASSWORD or password == user:
            wrong = f"has a password that is easily guessed; take {_MIN_PASSWORD} characters"
        elif not login.isascii():
            wrong = "has other than ASCII characters"
        if wrong:
            raise InputError(f"RANKMILL_FLOWER_BASIC_AUTH: login {number} {wrong}")
    return logins


def _check_history(history: Path | None) -> None:
    if history is not None and not (history.parent.is_dir() and os.access(history.parent, os.W_OK)):
        raise InputError(f"--history {history}: {history.parent} is not a folder to write in")
