"""What a Celery worker does beside its shards: it says that it lives, and looks for lost ones."""

from __future__ import annotations

import logging
import threading
from typing import Any

from rankmill import dispatch
from rankmill.errors import RankmillError
from rankmill.ledger import Ledger
from rankmill.settings import settings

log = logging.getLogger(__name__)


def start_reconciling(sender: Any = None, **_: Any) -> None:
    """Begin the worker's regular look for lost shards, in its main process (signal `worker_ready`).

    Every worker looks, idle or busy, so that none is a single point of failure; Redis lets one of
    them have each turn.
    """
    name = str(getattr(sender, "hostname", "worker"))
    threading.Thread(
        target=_reconcile_for_ever, args=(name,), name="reconcile", daemon=True
    ).start()


def _reconcile_for_ever(name: str) -> None:
    ledger = Ledger.connect(settings())
    pause = threading.Event()
    while True:
        try:
            ledger.worker_seen(name)
            dispatch.reconcile(ledger, settings())
        except RankmillError as error:
            log.warning("reconcile: %s", error)
        pause.wait(settings().reconcile_s)
