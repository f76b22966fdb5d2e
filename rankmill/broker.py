"""The Celery app and its configuration: routes, JSON only, late acknowledgement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from celery import Celery
from kombu.transport.redis import PRIORITY_STEPS, Channel

from rankmill.broker_url import is_sentinel, sentinels
from rankmill.connections import use_shared_connections
from rankmill.contract.plan import ShardSpec
from rankmill.ledger.client import broker_errors, sentinel_options, tls_options
from rankmill.settings import Settings, settings

SCORE_QUEUE = "rankmill.score"
CONTROL_QUEUE = "rankmill.control"

Role = Literal["all", "score", "control"]

SUBMIT = "rankmill.submit"
PREPARE = "rankmill.prepare"
SCORE_SHARD = "rankmill.score_shard"
FINALIZE = "rankmill.finalize"
REPORT = "rankmill.report"
NOTIFY = "rankmill.notify"
TICK = "rankmill.tick"

# Longer than any shard should take. Claims and reconcile rescue a dead worker's shard in under a
# minute, so that a redelivery after this time is a rare, harmless duplicate.
VISIBILITY_TIMEOUT_S = 6 * 3600

_TASK_ID = re.compile(r"([0-9a-f]{12})-(?:(\d{5,})|prepare|finalize|report)")


@lru_cache(maxsize=1)
def app() -> Celery:
    """Return this process's app, on the broker of its settings."""
    return make_app(settings())


def make_app(settings: Settings) -> Celery:
    """Return a Celery app; workers and producers must share its configuration, routes included.

    A process without this code that sends by task name needs the same routes, or `queue=`.
    """
    use_shared_connections()
    celery = Celery("rankmill")
    celery.conf.update(
        broker_url=settings.broker_url,
        broker_use_ssl=tls_options(settings) or None,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # wait for a Redis that refuses commands, too
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "client_name": "rankmill-messages",  # of connections that wait; others: "rankmill"
            "queue_order_strategy": "priority",  # the control queue is named first
            **_sentinel_options(settings),
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
        task_default_exchange="",  # messages go straight to a queue, whatever is bound to it
        event_queue_expires=None,  # a queue that expires is kept alive by a script
        control_queue_expires=None,
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
        **_beat(settings),
    )
    celery.amqp.autoexchange = lambda _: None  # the same for queues that no setting names
    return celery


def _beat(settings: Settings) -> dict[str, Any]:
    """Return the configuration of beat with RedBeat: one entry, rewritten at each start.

    The lock of a killed beat expires after six of its loops.
    """
    loop_s = min(5.0, settings.tick_s / 2)
    return {
        "beat_scheduler": "tasks.beat:OwnScheduler",
        **_redbeat_connection(settings),
        "redbeat_key_prefix": "rankmill:beat:",
        "redbeat_lock_timeout": max(5, round(6 * loop_s)),
        "beat_max_loop_interval": loop_s,
        "result_expires": None,  # else it also sends a clean-up of results, of which there are none
        "beat_schedule": {
            TICK: {
                "task": TICK,
                "schedule": settings.tick_s,
                # So that a night without workers does not pile them up.
                "options": {"expires": 3600},
            }
        },
    }


def _sentinel_options(settings: Settings) -> dict[str, Any]:
    """Return kombu's options for a sentinel:// broker; empty for other brokers."""
    if not is_sentinel(settings.broker_url):
        return {}
    return {
        "master_name": settings.broker_master,
        "sentinel_kwargs": sentinel_options(settings),
    }


def _redbeat_connection(settings: Settings) -> dict[str, Any]:
    """Return the connection of beat's scheduler, which takes sentinels as options."""
    options: dict[str, Any] = {"socket_timeout": 30, "socket_connect_timeout": 5}
    if not is_sentinel(settings.broker_url):
        url = settings.broker_url.replace("redis+socket://", "unix://")
        return {"redbeat_redis_url": url, "redbeat_redis_options": options}
    place = sentinels(settings.broker_url)
    options |= {
        "sentinels": list(place.addresses),
        "service_name": settings.broker_master,
        "sentinel_kwargs": sentinel_options(settings),
        **{"username": place.username, "password": place.password, "db": place.database},
    }
    return {"redbeat_redis_url": "redis-sentinel://", "redbeat_redis_options": options}


def score_queue(model_id: str) -> str:
    """Return the queue of a model's shards: its own if the settings name it."""
    if model_id not in (settings().model_queues or ()):
        return SCORE_QUEUE
    return f"{SCORE_QUEUE}.{re.sub(r'[^A-Za-z0-9_.-]+', '-', model_id).strip('-')}"


def score_queues() -> tuple[str, ...]:
    """Return every queue in which shards may wait."""
    return (SCORE_QUEUE, *map(score_queue, settings().model_queues or ()))


def queues_of(role: Role) -> tuple[str, ...]:
    """Return the queues of a worker by its role; it takes from the control queue first."""
    control = () if role == "score" else (CONTROL_QUEUE,)
    return control if role == "control" else (*control, *score_queues())


def lists_of(queues: Iterable[str]) -> list[str]:
    """Return the lists in Redis that hold the messages of queues.

    kombu puts messages that are sent with a priority of Celery into lists of their own.
    """
    steps = ("", *(f"{Channel.sep}{step}" for step in PRIORITY_STEPS if step))
    return [f"{queue}{step}" for queue in queues for step in steps]


def queue_of(list_name: str) -> str:
    """Return the queue whose messages a list in Redis holds."""
    return list_name.partition(Channel.sep)[0]


def send_shard(shard: ShardSpec, model_id: str) -> None:
    """Send a shard; its task id names it, so that a waiting message can be recognized."""
    n_rows = shard.stop_row - shard.start_row
    model = model_id.rpartition("/")[2] if model_id.startswith("/") else model_id
    _send(
        SCORE_SHARD,
        kwargs={"shard": shard.model_dump()},
        task_id=shard_task_id(shard.job_id, shard.shard_index),
        kwargsrepr=f"shard {shard.shard_index + 1} of {shard.n_shards}, {n_rows:,} pairs, {model}, "
        f"job {shard.job_id}",
        queue=score_queue(model_id),
    )


def send_prepare(job_id: str, output_uri: str) -> None:
    """Send the preparation of a job."""
    _send_for_job(PREPARE, job_id, output_uri)


def send_finalize(job_id: str, output_uri: str) -> None:
    """Send the finalization of a job."""
    _send_for_job(FINALIZE, job_id, output_uri)


def send_report(job_id: str, output_uri: str) -> None:
    """Send the task that writes the report page of a job without success."""
    _send_for_job(REPORT, job_id, output_uri)


def send_notify(event: dict[str, Any], event_id: str, shown: str) -> None:
    """Send an event for the webhook; the worker's settings hold address and secret."""
    _send(NOTIFY, kwargs={"event": event}, task_id=f"notify-{event_id}", kwargsrepr=shown)


def _send_for_job(name: str, job_id: str, output_uri: str) -> None:
    _send(
        name,
        kwargs={"job_id": job_id, "output_uri": output_uri},
        task_id=job_task_id(name, job_id),
        kwargsrepr=f"job {job_id}",
    )


def _send(
    name: str,
    *,
    kwargs: dict[str, Any],
    task_id: str,
    kwargsrepr: str,
    queue: str = CONTROL_QUEUE,
) -> None:
    with broker_errors():
        app().send_task(
            name,
            kwargs=kwargs,
            task_id=task_id,
            kwargsrepr=kwargsrepr,
            argsrepr="",
            queue=queue,
        )


def task_id_of(message: str) -> str:
    """Return the task id of a waiting message; empty if it is not a message of Celery."""
    try:
        return str(json.loads(message)["headers"]["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def job_task_id(name: str, job_id: str) -> str:
    """Return the task id of a job's preparation, finalization or report."""
    return f"{job_id}-{name.removeprefix('rankmill.')}"


def shard_task_id(job_id: str, shard_index: int) -> str:
    """Return the task id of a shard."""
    return f"{job_id}-{shard_index:05d}"


def work_of(task_id: str) -> dict[str, str | int]:
    """Return job_id, and shard_index for a shard, by a task id; empty for any other id."""
    named = _TASK_ID.fullmatch(task_id)
    if named is None:
        return {}
    job_id, shard = named.groups()
    return {"job_id": job_id, "shard_index": int(shard)} if shard else {"job_id": job_id}
