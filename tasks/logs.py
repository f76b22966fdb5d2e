"""Celery's lines are ours: one formatter for all that a worker or beat has to say."""

from __future__ import annotations

import logging
from typing import Any

from billiard.util import get_logger as get_pool_logger

from rankmill import logs
from rankmill.broker import app
from rankmill.settings import settings


def set_up_logs(**_: Any) -> None:
    """In place of Celery's own set-up (signal `setup_logging`); what is printed is a line too."""
    if not logs.is_set_up():
        _set_up()
    app().log.redirect_stdouts("WARNING")


def name_worker(sender: str = "", **_: Any) -> None:
    """Have each line say whose it is (signals `celeryd_init`, `worker_process_init`)."""
    _set_up(worker=sender)


def _set_up(**process: str) -> None:
    handler = logs.set_up(settings(), **process)
    pool = get_pool_logger()  # apart from the others; it tells of children that were killed
    pool.handlers = [handler]
    pool.setLevel(logging.ERROR)
