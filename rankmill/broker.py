"""The Celery app and all of its configuration: routes, JSON only, nothing acknowledged early."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from rankmill.errors import BrokerUnavailable
from rankmill.settings import Settings, settings
from rankmill.spec import ShardSpec

SCORE_QUEUE = "rankmill.score"
CONTROL_QUEUE = "rankmill.control"

SUBMIT = "rankmill.submit"
PREPARE = "rankmill.prepare"
SCORE_SHARD = "rankmill.score_shard"
FINALIZE = "rankmill.finalize"

# Longer than any shard should take. It is not what rescues a dead worker's shard (claims and
# reconcile do, in under a minute), so a redelivery by it is a rare, harmless duplicate.
_VISIBILITY_TIMEOUT_S = 6 * 3600


@lru_cache(maxsize=1)
def app() -> Celery:
    """The process's app on the broker of its settings."""
    return make_app(settings())


def make_app(settings: Settings) -> Celery:
    """A Celery app; workers and producers must share this configuration, routes included.

    A message sent by name from a process without our code needs the same routes, or an explicit
    `queue=`.
    """
    celery = Celery("rankmill")
    celery.conf.update(
        broker_url=settings.broker_url,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "queue_order_strategy": "priority",  # the control queue is named first
        },
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,  # completion is the set of shard reports
        task_routes={
            SCORE_SHARD: {"queue": SCORE_QUEUE},
            "rankmill.*": {"queue": CONTROL_QUEUE},
        },
        task_default_queue=CONTROL_QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_concurrency=1,  # one device, one process
        worker_pool_start_method="spawn",  # CUDA does not survive a fork
        worker_proc_alive_timeout=120,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_hijack_root_logger=True,
        enable_utc=True,
    )
    return celery


def send_shard(shard: ShardSpec) -> None:
    """Publish one shard; its message is named after it, so that a waiting one can be recognized."""
    _send(
        SCORE_SHARD,
        kwargs={"shard": shard.model_dump()},
        task_id=shard_task_id(shard.job_id, shard.shard_index),
        kwargsrepr=f"job {shard.job_id}, shard {shard.shard_index + 1} of {shard.n_shards}",
    )


def send_prepare(job_id: str, output_uri: str) -> None:
    _send_for_job(PREPARE, job_id, output_uri)


def send_finalize(job_id: str, output_uri: str) -> None:
    _send_for_job(FINALIZE, job_id, output_uri)


def _send_for_job(name: str, job_id: str, output_uri: str) -> None:
    _send(
        name,
        kwargs={"job_id": job_id, "output_uri": output_uri},
        task_id=job_task_id(name, job_id),
        kwargsrepr=f"job {job_id}",
    )


def _send(name: str, *, kwargs: dict[str, Any], task_id: str, kwargsrepr: str) -> None:
    try:
        app().send_task(name, kwargs=kwargs, task_id=task_id, kwargsrepr=kwargsrepr, argsrepr="")
    except OperationalError as error:
        raise BrokerUnavailable(f"Redis does not take the message: {error}") from error


def job_task_id(name: str, job_id: str) -> str:
    return f"{job_id}-{name.removeprefix('rankmill.')}"


def shard_task_id(job_id: str, shard_index: int) -> str:
    return f"{job_id}-{shard_index:05d}"
