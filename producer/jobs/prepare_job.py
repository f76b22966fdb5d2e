"""The preparation of a job as a unit: pairs and known scores, then its plan, then its start.

The plan is the commit point: without one, whoever comes next begins anew.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from structlog.contextvars import bound_contextvars

from producer.inputs.source import read_pairs, read_source
from producer.jobs.plan import make_plan
from producer.prepare.job_inputs import find_inputs, needs_prepare
from producer.prepare.prepare import prepare
from producer.reuse.earlier import Earlier
from producer.reuse.known_scores import look_up
from producer.tables.workspace import Progress
from rankmill.contract.job import InputFile, JobRecord, Plan, job_id_for
from rankmill.dispatch import Dispatcher
from rankmill.errors import ClaimLost, InputError, RankmillError, unexpected
from rankmill.ledger.claims import PREPARATION, Claim
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.progress import ProgressEvents
from rankmill.settings import Settings

log = get_logger(__name__)


def prepare_job(dispatcher: Dispatcher, job_id: str, output_uri: str) -> None:
    """Prepare a job and start it; again, twice at once or too late is harmless.

    Raises:
        TransientError: worth another try, by the caller.
    """
    output = Output(output_uri)
    try:
        record = output.read_job()
        dispatcher.ledger.check_in_place(job_id, record)
    except RankmillError as error:
        if error.transient:
            raise
        dispatcher.refuse(job_id, output_uri, error)
        return
    if record is None or record.job_id != job_id or output.has_ended():
        return
    with bound_contextvars(job_id=job_id):
        _prepare_and_start(dispatcher, record)


def _prepare_and_start(dispatcher: Dispatcher, record: JobRecord) -> None:
    output = Output(record.spec.output_uri)
    try:
        if output.read_plan() is None and not _write_plan(dispatcher, record):
            return
        dispatcher.start(output.load_job())
    except ClaimLost as error:
        log.warning("claim is lost", error=str(error))
    except RankmillError as error:
        if error.transient:
            raise
        dispatcher.fail(record, error, None)
    except Exception as error:
        bug = unexpected(error)
        if bug.transient:
            raise bug from error
        log.exception("preparation met a bug")  # the same again would not help
        dispatcher.fail(record, bug, None)


def _write_plan(dispatcher: Dispatcher, record: JobRecord) -> bool:
    """Prepare and plan; False while another does."""
    ledger, settings = dispatcher.ledger, dispatcher.settings
    claim = Claim.take(ledger.claims, record.job_id, PREPARATION, settings.claim_s)
    if claim is None:
        return False
    output = Output(record.spec.output_uri)
    with claim, ProgressEvents.of_this_task("preparing") as events:
        tries = ledger.claims.begin_try(record.job_id, PREPARATION)
        if tries > settings.max_tries:
            raise RankmillError(
                f"preparing the input killed its worker {tries - 1} times; is the machine's "
                "memory smaller than RANKMILL_PREPARE_MEMORY?"
            )
        plan = _prepared_plan(settings, record, claim, events)
        ledger.claims.end_try(record.job_id, PREPARATION)
        claim.check()
        output.write_plan(plan)
    return True


def _prepared_plan(
    settings: Settings, record: JobRecord, claim: Claim, events: ProgressEvents
) -> Plan:
    spec, output = record.spec, Output(record.spec.output_uri)

    def progress(step: str, n_rows: int) -> None:
        log.info("preparing", step=step, n_rows=n_rows)
        events.tell(f"{step}: {n_rows:,} rows")
        claim.progress(n_rows, 0)
        claim.check()
        if output.has_ended():
            raise ClaimLost(f"{output.uri} no longer waits for job {record.job_id}")

    with tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings.scratch) as scratch:
        if needs_prepare(spec):
            plan = _plan_of_new_pairs(settings, record, Path(scratch), progress)
        else:
            plan = _plan_of_pairs(record)
        if spec.reuse_from is not None and record.no_reuse is None:
            earlier = Earlier.open(spec.reuse_from)
            memory = settings.prepare_memory
            known = look_up(spec, plan, earlier, Path(scratch), progress, memory)
            claim.check()
            output.write_known(known)
    return plan


def _plan_of_new_pairs(
    settings: Settings, record: JobRecord, scratch: Path, progress: Progress
) -> Plan:
    spec, target = record.spec, Output(record.spec.output_uri).prepared_uri
    files = find_inputs(spec)
    _check_unchanged(record, files)
    columns = prepare(spec, files, target, scratch, progress, settings.prepare_memory)
    source = read_source([target])
    return make_plan(record.job_id, spec, source, columns)


def _plan_of_pairs(record: JobRecord) -> Plan:
    spec = record.spec
    source = read_pairs(spec)
    _check_unchanged(record, source.files)
    return make_plan(record.job_id, spec, source)


def _check_unchanged(record: JobRecord, files: tuple[InputFile, ...]) -> None:
    if job_id_for(record.spec, files) != (record.content_id or record.job_id):
        raise InputError("the input changed after the job was submitted; submit it again")
