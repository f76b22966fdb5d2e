"""What a Celery worker does beside its shards: it says that it lives, and looks for lost ones."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

from rankmill.broker import score_queues
from rankmill.dispatch import dispatcher
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from worker.liveness.heartbeat import worker_heartbeat

log = get_logger(__name__)


@lru_cache(maxsize=1)
def reconciler() -> Reconciler:
    """The process's own, which remembers the jobs that it has seen."""
    return Reconciler(dispatcher())


def remember_job(request: Any = None, **_: Any) -> None:
    """Note the job of a message that came (signal `task_received`, in the main process).

    A Redis that loses everything before the next look would else leave a job that nobody knows.
    """
    work = request.kwargs.get("shard", request.kwargs)
    if "job_id" in work and "output_uri" in work:
        reconciler().remember(work["job_id"], work["output_uri"])


def forget_beat(conf: Any = None, **_: Any) -> None:
    """Drop beat's Redis, which a worker has no use for (signal `celeryd_init`).

    A worker tells its configuration to who asks; Flower shows it, with the password in that URL.
    """
    conf.redbeat_redis_url = None


def start_reconciling(sender: Any = None, **_: Any) -> None:
    """Begin the worker's regular look for lost shards, in its main process (signal `worker_ready`).

    The main process is idle while its child scores, so that a busy worker looks too.
    """
    name, queues = str(sender.hostname), sender.app.amqp.queues
    threading.Thread(
        target=_reconcile_for_ever, args=(name, queues), name="reconcile", daemon=True
    ).start()


def _reconcile_for_ever(name: str, queues: Any) -> None:
    """
    Args:
        queues: the worker's own; which of them it takes from may be changed while it lives.
    """
    pause = threading.Event()
    while True:
        try:
            taken = list(queues.consume_from)
            # A worker for control alone is not one of those that shards in flight are counted by.
            scores = not set(score_queues()).isdisjoint(taken)
            ledger().worker_seen(name, taken, scores=scores)
            reconciler().look()
            worker_heartbeat().redis_answered()
        except BrokerUnavailable as error:
            worker_heartbeat().redis_failed()
            log.warning("lost shards cannot be looked for", error=str(error))
        except RankmillError as error:
            log.warning("lost shards cannot be looked for", error=str(error))
        except Exception:  # whatever it was, a worker that no longer looks helps nobody
            log.exception("lost shards cannot be looked for")
        pause.wait(settings().reconcile_s)
