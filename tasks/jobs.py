"""The task shells: each parses its message and calls one plain function.

Imports are inside the bodies, so that Flower, beat and a control worker start without torch.
Each takes all arguments as one, since a newer release may send more of them.
"""

from __future__ import annotations

from typing import Any

from rankmill.broker import FINALIZE, NOTIFY, PREPARE, REPORT, SCORE_SHARD, SUBMIT, TICK
from rankmill.contract.base import parse, parse_given
from rankmill.contract.job import JobMessage, JobSpec, SubmitMessage
from rankmill.contract.plan import ShardMessage
from rankmill.devices.choice import EXIT_DEVICE_LOST
from rankmill.dispatch import dispatcher
from rankmill.errors import DeviceFault, RankmillError
from rankmill.ledger.jobs import ledger
from rankmill.logs import get_logger
from rankmill.settings import settings
from tasks.base import Shell
from tasks.celery import app

log = get_logger(__name__)

_MAX_RETRIES = 8

# A webhook's tries spread over half an hour. Each ends soon, since the worker may have shards to
# score.
_MAX_NOTIFY_RETRIES = 12
_MAX_NOTIFY_PAUSE_S = 600.0
_NOTIFY_LIMIT_S = 20


@app.task(name=SUBMIT, max_retries=_MAX_RETRIES)
def submit(**arguments: Any) -> str:
    """Submit the job of a `JobSpec` sent as JSON; return its id for Flower."""
    from producer.jobs.submit import submit_spec

    message = parse(SubmitMessage, arguments, SUBMIT)
    spec = parse_given(JobSpec, message.spec, SUBMIT)
    return f"job {submit_spec(spec, overwrite=message.overwrite).job_id}"


@app.task(name=SCORE_SHARD, bind=True, max_retries=_MAX_RETRIES)
def score_shard(self: Shell, **arguments: Any) -> str:
    """Score a shard; return the outcome. This host declines it once its retries are used up."""
    from worker.delivery import deliver, give_up, put_off

    spec = parse(ShardMessage, arguments, SCORE_SHARD).shard
    try:
        return deliver(spec, self.request.retries)
    except DeviceFault as error:
        # Celery returns the message of a process that ends to the queue, and starts another one.
        log.error("process ends: device failed", error=str(error))
        raise SystemExit(EXIT_DEVICE_LOST) from error
    except RankmillError as error:
        if not error.transient or self.is_waited_for(error):
            raise
        if self.request.retries >= _MAX_RETRIES:
            return give_up(spec, error)
        pause_s = self.pause_s()
        put_off(spec, pause_s)
        raise self.again(error, pause_s) from None


@app.task(name=PREPARE, max_retries=_MAX_RETRIES)
def prepare(**arguments: Any) -> None:
    """Prepare the input of a job, then plan and start it."""
    from producer.jobs.prepare_job import prepare_job

    job = parse(JobMessage, arguments, PREPARE)
    prepare_job(dispatcher(), job.job_id, job.output_uri)


@app.task(name=FINALIZE, max_retries=_MAX_RETRIES)
def finalize(**arguments: Any) -> None:
    """Check and finish a job whose shards are all reported."""
    from worker.finalize import finalize as finalize_job

    job = parse(JobMessage, arguments, FINALIZE)
    finalize_job(dispatcher(), job.job_id, job.output_uri)


@app.task(name=REPORT)
def report(**arguments: Any) -> None:
    """Write the report page of a job that ended without success."""
    from worker.report import report as write_report

    job = parse(JobMessage, arguments, REPORT)
    write_report(dispatcher(), job.job_id, job.output_uri)


@app.task(
    name=NOTIFY,
    max_retries=_MAX_NOTIFY_RETRIES,
    longest_pause_s=_MAX_NOTIFY_PAUSE_S,
    soft_time_limit=_NOTIFY_LIMIT_S,
)
def notify(**arguments: Any) -> None:
    """Post an event to the webhook if a job or a schedule of this cluster has it."""
    from producer.schedules.events import is_noted
    from producer.schedules.store import Store
    from rankmill.notify import NotifyMessage, as_recorded
    from worker.webhook import post_event

    sent = parse(NotifyMessage, arguments, NOTIFY).event
    event = as_recorded(sent, ledger())
    if event is None and is_noted(sent, Store.connect(settings())):
        event = sent
    if event is None:
        fields = {"event_id": sent.event_id, "kind": sent.kind, "job_id": sent.job_id}
        log.warning("event dropped: no job or schedule has it", **fields)
        return
    post_event(ledger(), settings(), event)


@app.task(name=TICK)
def tick() -> None:
    """Scan the schedules for due runs; the next tick makes up for one that fails."""
    from producer.schedules.tick import tick as tick_once

    try:
        tick_once(ledger(), settings())
    except RankmillError as error:
        if not error.transient:
            raise
        log.warning("schedules cannot be scanned", error=error)
