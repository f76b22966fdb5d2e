"""The background work of a Celery worker: send its heartbeat, scan for lost shards."""

from __future__ import annotations

import math
import threading
import time
from functools import lru_cache
from typing import Any

from rankmill.broker import score_queues
from rankmill.dispatch import dispatcher
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.host import worker_id
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from worker.liveness.heartbeat import worker_heartbeat
from worker.pauses import pauses

log = get_logger(__name__)

# A worker counts as gone after a minute without its heartbeat in Redis.
_SEEN_S = 25.0

_stopping = threading.Event()
_noting = threading.Lock()


@lru_cache(maxsize=1)
def reconciler() -> Reconciler:
    """Return this process's reconciler, which remembers the jobs that it has seen."""
    return Reconciler(dispatcher())


def remember_job(request: Any = None, **_: Any) -> None:
    """Remember the job of a received message (signal `task_received`, in the main process).

    Otherwise nobody would know the job if Redis lost everything before the next scan.
    """
    work = request.kwargs.get("shard", request.kwargs)
    if "job_id" in work and "output_uri" in work:
        reconciler().remember(work["job_id"], work["output_uri"])


def forget_beat(conf: Any = None, **_: Any) -> None:
    """Remove beat's Redis URL, which a worker does not use (signal `celeryd_init`).

    A worker sends its configuration on request. Flower would show it, with the password in the URL.
    """
    conf.redbeat_redis_url = None
    conf.redbeat_redis_options = {}


def start_reconciling(sender: Any = None, **_: Any) -> None:
    """Start the scans for lost shards in a worker's main process (signal `worker_ready`).

    The main process is idle while its child scores, so that a busy worker scans too.
    """
    queues = sender.app.amqp.queues

    def scan_for_ever() -> None:
        seen: tuple[float, tuple[list[str], str]] = (-math.inf, ([], ""))
        while not _stopping.is_set():
            pause_s = settings().reconcile_s
            try:
                # These may change while the worker runs; it takes paused ones again soon.
                taken = sorted({*queues.consume_from, *pauses().paused()})
                declines = worker_heartbeat().record.declines
                now, state = time.monotonic(), (taken, declines)
                if state != seen[1] or now - seen[0] > min(_SEEN_S, 5 * settings().reconcile_s):
                    # A worker for control alone does not count for the window of shards in flight.
                    scores = not set(score_queues()).isdisjoint(taken)
                    with _noting:
                        if not _stopping.is_set():
                            ledger().workers.seen(worker_id(), taken, scores=scores)
                    if declines:
                        ledger().declines.note_unfit(worker_id(), declines, ledger().now())
                    seen = (now, state)
                pause_s = reconciler().scan()
                worker_heartbeat().redis_answered()
            except BrokerUnavailable as error:
                worker_heartbeat().redis_failed()
                log.warning("cannot scan for lost shards", error=error)
            except RankmillError as error:
                log.warning("cannot scan for lost shards", error=str(error))
            except Exception:  # any bug: a worker that stops scanning rescues no shard
                log.exception("cannot scan for lost shards")
            _stopping.wait(pause_s)

    threading.Thread(target=scan_for_ever, name="reconcile", daemon=True).start()


def leave(sender: Any = None, **_: Any) -> None:
    """Remove a stopped worker from Redis, so that it does not count as lost (`worker_shutdown`).

    One that ends by an error, or because its device failed, stays and counts as lost.
    """
    with _noting:  # else a note under way would come after this worker has left
        _stopping.set()
    if sender.exitcode:
        return
    try:
        taken = {*sender.app.amqp.queues.consume_from, *pauses().paused()}
        ledger().workers.left(worker_id(), taken)
    except BrokerUnavailable as error:
        log.warning("stop not noted in Redis", error=error)
