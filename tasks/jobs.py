"""The task shells: each parses its message and calls one plain function.

Bodies import what they run, so that Flower, beat and a control worker start without torch.
"""

from __future__ import annotations

import random
from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from rankmill.broker import FINALIZE, NOTIFY, PREPARE, REPORT, SCORE_SHARD, SUBMIT, TICK
from rankmill.contract.base import parse
from rankmill.contract.job import JobSpec, ShardSpec
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.dispatch import dispatcher
from rankmill.errors import DeviceFault, TransientError, WebhookRefused, WebhookUnavailable
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.settings import settings
from tasks.celery import app

log = get_logger(__name__)

_MAX_RETRIES = 8

# Tries of a webhook are spread over half an hour, and each ends soon: the worker may have shards
# to score.
_MAX_NOTIFY_RETRIES = 12
_MAX_NOTIFY_PAUSE_S = 600.0
_NOTIFY_LIMIT_S = 20


@app.task(name=SUBMIT, bind=True, max_retries=_MAX_RETRIES)
def submit(self: Task, spec: dict[str, Any], overwrite: bool = False) -> str:
    from producer.jobs.submit import submit_spec

    job_spec = parse(JobSpec, spec, "rankmill.submit")
    try:
        return f"job {submit_spec(job_spec, overwrite=overwrite).job_id}"
    except TransientError as error:
        raise _try_again(self, error, _backoff_s(self.request.retries)) from error


@app.task(name=SCORE_SHARD, bind=True, max_retries=_MAX_RETRIES)
def score_shard(self: Task, shard: dict[str, Any]) -> str:
    from worker.delivery import deliver, give_up, put_off

    spec = parse(ShardSpec, shard, "rankmill.score_shard")
    try:
        return deliver(spec, self.request.retries)
    except DeviceFault as error:
        # Celery gives the message of a process that ends back, and starts another one.
        log.error("this process ends", error=str(error))
        raise SystemExit(EXIT_DEVICE_LOST) from error
    except TransientError as error:
        if self.request.retries >= _MAX_RETRIES:
            return give_up(spec, error)
        countdown_s = _backoff_s(self.request.retries)
        put_off(spec, countdown_s)
        raise _try_again(self, error, countdown_s) from error


@app.task(name=PREPARE, bind=True, max_retries=_MAX_RETRIES)
def prepare(self: Task, job_id: str, output_uri: str) -> None:
    from producer.jobs.prepare_job import prepare_job

    try:
        prepare_job(dispatcher(), job_id, output_uri)
    except TransientError as error:
        raise _try_again(self, error, _backoff_s(self.request.retries)) from error


@app.task(name=FINALIZE, bind=True, max_retries=_MAX_RETRIES)
def finalize(self: Task, job_id: str, output_uri: str) -> None:
    from worker.finalize import finalize as finalize_job

    try:
        finalize_job(dispatcher(), job_id, output_uri)
    except TransientError as error:
        raise _try_again(self, error, _backoff_s(self.request.retries)) from error


def _try_again(task: Task, error: Exception, countdown_s: float) -> Exception:
    """What to raise; Celery would else show the arguments as they are, not as they are told."""
    told = {"argsrepr": task.request.argsrepr, "kwargsrepr": task.request.kwargsrepr}
    retry: Exception = task.retry(exc=error, countdown=countdown_s, throw=False, **told)
    return retry


@app.task(name=REPORT)
def report(job_id: str, output_uri: str) -> None:
    from rankmill.report import report_end

    report_end(job_id, output_uri)


@app.task(
    name=NOTIFY,
    bind=True,
    max_retries=_MAX_NOTIFY_RETRIES,
    soft_time_limit=_NOTIFY_LIMIT_S,
    throws=(WebhookRefused, WebhookUnavailable),
)
def notify(self: Task, event: dict[str, Any]) -> None:
    from rankmill.notify import Event
    from worker.webhook import post_event

    try:
        post_event(ledger(), settings(), parse(Event, event, NOTIFY))
    except (TransientError, SoftTimeLimitExceeded) as error:
        countdown_s = _backoff_s(self.request.retries, _MAX_NOTIFY_PAUSE_S)
        raise _try_again(self, error, countdown_s) from None


@app.task(name=TICK)
def tick() -> None:
    from producer.schedules.tick import tick as tick_once

    try:
        tick_once(ledger(), settings())
    except TransientError as error:
        # The next tick makes up for it.
        log.warning("schedules cannot be looked at", error=str(error))


def _backoff_s(retries: int, longest_s: float = 60.0) -> float:
    """1, 2, 4 … 60 seconds, each with up to half as much again, so that retries do not meet."""
    return min(longest_s, 2.0**retries) * (1 + random.random() / 2)
