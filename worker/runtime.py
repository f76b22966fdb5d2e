"""What a Celery worker does beside its shards: it says that it lives, and looks for lost ones."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Any

from rankmill.errors import RankmillError
from rankmill.ledger import ledger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def reconciler() -> Reconciler:
    """The process's own, which remembers the jobs that it has seen."""
    return Reconciler(ledger(), settings())


def remember_job(request: Any = None, **_: Any) -> None:
    """Note the job of a message that came (signal `task_received`, in the main process).

    A Redis that loses everything before the next look would else leave a job that nobody knows.
    """
    work = request.kwargs.get("shard", request.kwargs)
    if "job_id" in work and "output_uri" in work:
        reconciler().remember(work["job_id"], work["output_uri"])


def start_reconciling(sender: Any = None, **_: Any) -> None:
    """Begin the worker's regular look for lost shards, in its main process (signal `worker_ready`).

    The main process is idle while its child scores, so that a busy worker looks too.
    """
    name = str(getattr(sender, "hostname", "worker"))
    threading.Thread(
        target=_reconcile_for_ever, args=(name,), name="reconcile", daemon=True
    ).start()


def _reconcile_for_ever(name: str) -> None:
    pause = threading.Event()
    while True:
        try:
            ledger().worker_seen(name)
            reconciler().look()
        except RankmillError as error:
            log.warning("reconcile: %s", error)
        except Exception:  # whatever it was, a worker that no longer looks helps nobody
            log.exception("reconcile")
        pause.wait(settings().reconcile_s)
