"""Prepare a job: write its pairs and reused scores, then its plan, then start it.

The plan is the commit point: without one, the next try begins again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from producer.inputs.source import read_pairs, read_source
from producer.jobs.plan import make_plan
from producer.prepare.job_inputs import find_inputs, needs_prepare
from producer.prepare.prepare import prepare
from producer.reuse.earlier import Earlier
from producer.reuse.known_scores import look_up
from producer.tables.workspace import Progress
from rankmill.contract.job import JobRecord
from rankmill.contract.job_id import job_id_for
from rankmill.contract.plan import InputFile, Plan
from rankmill.dispatch import Dispatcher
from rankmill.errors import ClaimLost, InputError, RankmillError
from rankmill.guard import attempt
from rankmill.ledger.claims import PREPARATION, Claim
from rankmill.logs import get_logger
from rankmill.output.output import Output
from rankmill.progress import ProgressEvents
from rankmill.settings import Settings

log = get_logger(__name__)


def prepare_job(dispatcher: Dispatcher, job_id: str, output_uri: str) -> None:
    """Prepare a job, plan and start it; idempotent, and harmless if too late.

    Raises:
        TransientError: a retry may help.
        Declined: this host cannot do it.
    """
    ledger, output = dispatcher.ledger, Output(output_uri)
    with attempt(dispatcher, job_id, output_uri) as tried:
        record = output.read_job()
        ledger.check_in_place(job_id, record)
        if record is None:
            raise output.unseen(job_id)
        if record.job_id != job_id or output.has_ended():
            return
        tried.record = record
        if output.read_plan() is None:
            claim = Claim.take(ledger.claims, job_id, PREPARATION, dispatcher.settings.claim_s)
            if claim is None:  # another worker prepares it
                return
            with claim, ledger.claims.counted_try(job_id, PREPARATION) as n_tries:
                if n_tries > dispatcher.settings.max_tries:
                    raise RankmillError(
                        f"preparing the input killed its worker {n_tries - 1} times; is the "
                        "machine's memory smaller than RANKMILL_PREPARE_MEMORY?"
                    )
                plan = _prepare(dispatcher.settings, record, claim)
                claim.check()
                output.write_plan(plan)
        dispatcher.start(output.load_job())


def _prepare(settings: Settings, record: JobRecord, claim: Claim) -> Plan:
    """Write the pairs and the reused scores that the job needs; return its plan."""
    spec, output = record.spec, Output(record.spec.output_uri)
    with (
        ProgressEvents.of_this_task("preparing") as events,
        tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings.scratch) as folder,
    ):
        scratch = Path(folder)

        def progress(step: str, n_rows: int) -> None:
            log.info("preparing", step=step, n_rows=n_rows)
            events.show(f"{step}: {n_rows:,} rows")
            claim.progress(n_rows, 0)
            claim.check()
            if output.has_ended():
                raise ClaimLost(f"{output.uri} no longer waits for job {record.job_id}")

        plan = plan_of(settings, record, scratch, progress)
        if spec.reuse_from is not None and record.no_reuse is None:
            earlier = Earlier.open(spec.reuse_from)
            known = look_up(spec, plan, earlier, scratch, progress, settings.prepare_memory)
            claim.check()
            output.write_known(known)
    return plan


def plan_of(settings: Settings, record: JobRecord, scratch: Path, progress: Progress) -> Plan:
    """Return the plan over the input's pairs, which are written first if the input has none.

    Raises:
        InputError: the input is bad, or has changed since its job was checked.
    """
    spec = record.spec
    if not needs_prepare(spec):
        source = read_pairs(spec)
        _check_unchanged(record, source.files)
        return make_plan(record.job_id, spec, source)
    files = find_inputs(spec)
    _check_unchanged(record, files)
    target = Output(spec.output_uri).prepared_uri
    columns = prepare(spec, files, target, scratch, progress, settings.prepare_memory)
    return make_plan(record.job_id, spec, read_source([target]), columns)


def _check_unchanged(record: JobRecord, files: tuple[InputFile, ...]) -> None:
    if job_id_for(record.spec, files) != (record.content_id or record.job_id):
        raise InputError("the input changed after the job was submitted; submit it again")
