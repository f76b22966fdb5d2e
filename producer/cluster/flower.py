"""Flower as the cluster's dashboard: always with a password, read-only unless allowed otherwise.

It runs in this process: its log has our form, and no password is on a command line.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from producer.cluster.flower_events import check_all
from rankmill import logs
from rankmill.errors import InputError
from rankmill.ledger.client import connect
from rankmill.ledger.server import check_at_start
from rankmill.logs import get_logger
from rankmill.settings import CHECKOUT, Settings

log = get_logger(__name__)

_COLUMNS = "uuid,name,kwargs,state,result,runtime,worker,received"
# Seconds. A shard takes from one to thousands.
_RUNTIME_BUCKETS = (1, 3, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_MAX_TASKS = 20_000  # about 50 MB; older ones are dropped
_SAVE_EVERY_MS = 60_000
_FORGET_WORKER_S = 24 * 3600
_MIN_PASSWORD = 8  # characters
_PAUSE_S = 2.0


@dataclass(frozen=True)
class Dashboard:
    """The options of Flower.

    Attributes:
        history: the file that keeps its history; None: the history ends with the process.
        allow_control: whether it may submit and shut down.
        url_prefix: the path under which a proxy serves it; empty for none.
    """

    address: str
    port: int
    history: Path | None
    allow_control: bool
    url_prefix: str = ""

    def options(self) -> list[str]:
        """Return Flower's command-line options."""
        options = {
            "address": self.address,
            "port": self.port,
            "read-only": not self.allow_control,
            "tasks-columns": _COLUMNS,
            "task-runtime-metric-buckets": ",".join(map(str, _RUNTIME_BUCKETS)),
            "max-tasks": _MAX_TASKS,
            "purge-offline-workers": _FORGET_WORKER_S,
            "conf": os.devnull,  # a flowerconfig.py of the folder could override these
            "logging": "none",
        }
        if self.url_prefix:
            options["url-prefix"] = self.url_prefix.strip("/")
        if self.history is not None:
            options |= {"persistent": True, "db": self.history}
            options |= {"state-save-interval": _SAVE_EVERY_MS}
        return [f"--{name}={value}" for name, value in options.items()]


def serve(dashboard: Dashboard, settings: Settings) -> None:
    """Run Flower until it is stopped.

    Raises:
        InputError: it is not installed, has no password, or cannot write its history.
    """
    logins = checked_logins(settings)
    if not re.fullmatch(r"[\w./~-]*", dashboard.url_prefix, re.ASCII):
        raise InputError(
            f"--url-prefix {dashboard.url_prefix} is not a path; give one such as /ops/flower"
        )
    if dashboard.history is not None:
        folder = dashboard.history.parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise InputError(f"--history {dashboard.history}: {folder} is not a writable folder")
    if find_spec("flower") is None:
        raise InputError("Flower is not installed: pip install 'rankmill[flower]'")
    check_at_start(connect(settings))
    # FLOWER_ variables of this shell could allow what must stay forbidden.
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        del os.environ[name]
    os.environ["FLOWER_BASIC_AUTH"] = logins
    os.chdir(CHECKOUT)
    logs.set_up(settings)
    from celery.bin.celery import celery  # hundreds of milliseconds

    check_all()
    _reconnect_soon()
    celery(["-A", "tasks", "flower", *dashboard.options()], prog_name="celery")


def _reconnect_soon() -> None:
    """Make Flower take events again two seconds after an outage, however long that was.

    Flower itself doubles its pause each time, without a limit.
    """
    import flower.app
    from celery.events import EventReceiver
    from flower.events import Events

    class SteadyEvents(Events):
        def run(self) -> None:
            while True:
                try:
                    with self.capp.connection() as connection:
                        handlers = {"*": self.on_event}
                        receiver = EventReceiver(connection, handlers=handlers, app=self.capp)
                        receiver.capture(limit=None, timeout=None, wakeup=True)
                except Exception as error:
                    log.warning("Flower waits for Redis", error=error)
                    time.sleep(_PAUSE_S)

    flower.app.Events = SteadyEvents


def checked_logins(settings: Settings) -> str:
    """Return the logins of the settings in the form that Flower takes.

    Raises:
        InputError: there are none, or a password is easily guessed.
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
