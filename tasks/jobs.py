"""The task shells: each parses its message and calls one plain function.

Bodies import what they run, so that Flower, beat and a control worker start without torch.
"""

from __future__ import annotations

import random
from typing import Any

from celery import Task

from rankmill.broker import FINALIZE, PREPARE, SCORE_SHARD, SUBMIT
from rankmill.errors import TransientError
from rankmill.ledger import ledger
from rankmill.settings import settings
from rankmill.spec import JobSpec, ShardSpec, parse
from tasks.celery import app

_MAX_RETRIES = 8


@app.task(name=SUBMIT, bind=True, max_retries=_MAX_RETRIES)
def submit(self: Task, spec: dict[str, Any], overwrite: bool = False) -> None:
    from producer.submit import submit_spec

    job_spec = parse(JobSpec, spec, "rankmill.submit")
    try:
        submit_spec(job_spec, overwrite=overwrite)
    except TransientError as error:
        raise self.retry(exc=error, countdown=_backoff_s(self.request.retries)) from error


@app.task(name=SCORE_SHARD, bind=True, max_retries=_MAX_RETRIES)
def score_shard(self: Task, shard: dict[str, Any]) -> None:
    from worker.delivery import deliver, give_up, put_off

    spec = parse(ShardSpec, shard, "rankmill.score_shard")
    try:
        deliver(spec)
    except TransientError as error:
        if self.request.retries >= _MAX_RETRIES:
            give_up(spec, error)
            return
        countdown_s = _backoff_s(self.request.retries)
        put_off(spec, countdown_s)
        raise self.retry(exc=error, countdown=countdown_s) from error


@app.task(name=PREPARE, bind=True, max_retries=_MAX_RETRIES)
def prepare(self: Task, job_id: str, output_uri: str) -> None:
    from producer.prepare.job import prepare_job

    try:
        prepare_job(ledger(), settings(), job_id, output_uri)
    except TransientError as error:
        raise self.retry(exc=error, countdown=_backoff_s(self.request.retries)) from error


@app.task(name=FINALIZE, bind=True, max_retries=_MAX_RETRIES)
def finalize(self: Task, job_id: str, output_uri: str) -> None:
    from worker.finalize import finalize as finalize_job

    try:
        finalize_job(ledger(), settings(), job_id, output_uri)
    except TransientError as error:
        raise self.retry(exc=error, countdown=_backoff_s(self.request.retries)) from error


def _backoff_s(retries: int) -> float:
    """1, 2, 4 … 60 seconds, each with up to half as much again, so that retries do not meet."""
    return min(60.0, 2.0**retries) * (1 + random.random() / 2)
