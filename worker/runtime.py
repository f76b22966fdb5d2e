"""What a Celery worker does beside its shards: it says that it lives, and looks for lost ones."""

from __future__ import annotations

import logging
import threading
from typing import Any

from rankmill.errors import RankmillError
from rankmill.ledger import Ledger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings

log = logging.getLogger(__name__)


def start_reconciling(sender: Any = None, **_: Any) -> None:
    """Begin the worker's regular look for lost shards, in its main process (signal `worker_ready`).

    The main process is idle while its child scores, so that a busy worker looks too.
    """
    name = str(getattr(sender, "hostname", "worker"))
    threading.Thread(
        target=_reconcile_for_ever, args=(name,), name="reconcile", daemon=True
    ).start()


def _reconcile_for_ever(name: str) -> None:
    ledger = Ledger.connect(settings())
    reconciler = Reconciler(ledger, settings())
    pause = threading.Event()
    while True:
        try:
            ledger.worker_seen(name)
            reconciler.look()
        except RankmillError as error:
            log.warning("reconcile: %s", error)
        except Exception:  # whatever it was, a worker that no longer looks helps nobody
            log.exception("reconcile")
        pause.wait(settings().reconcile_s)
