"""Format the log lines of Celery itself like those of the project."""

from __future__ import annotations

import logging
from typing import Any

from billiard.util import get_logger as get_pool_logger

from rankmill import logs
from rankmill.broker import app
from rankmill.settings import settings


def set_up_logs(**_: Any) -> None:
    """Replace Celery's own set-up (signal `setup_logging`); printed text becomes log lines too."""
    if not logs.is_set_up():
        _set_up()
    app().log.redirect_stdouts("WARNING")


def name_worker(sender: str = "", **_: Any) -> None:
    """Add the worker's name to each line (signals `celeryd_init`, `worker_process_init`)."""
    _set_up(worker=sender)


def _set_up(**process: str) -> None:
    handler = logs.set_up(settings(), **process)
    pool = get_pool_logger()  # it logs killed children, and propagates to no other logger
    pool.handlers = [handler]
    pool.setLevel(logging.ERROR)
