"""The preparation of a job as a unit: pairs under its output, then its plan, then its start.

The plan is the commit point: without one, whoever comes next begins anew.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from producer.plan import make_plan, read_source
from producer.prepare.inputs import candidate_columns, find_inputs
from producer.prepare.prepare import prepare
from rankmill import dispatch
from rankmill.claim import PREPARATION, Claim
from rankmill.errors import ClaimLost, InputError, RankmillError
from rankmill.ledger import Ledger
from rankmill.output import Output
from rankmill.settings import Settings
from rankmill.spec import JobRecord, Plan, job_id_for

log = logging.getLogger(__name__)


def prepare_job(ledger: Ledger, settings: Settings, job_id: str, output_uri: str) -> None:
    """Prepare a job and start it; again, twice at once or too late is harmless.

    Raises:
        TransientError: worth another try, by the caller.
    """
    output = Output(output_uri)
    record = output.read_job()
    if record is None or record.job_id != job_id or output.has_ended():
        return
    try:
        if output.read_plan() is None and not _write_plan(ledger, settings, record):
            return
        dispatch.start(ledger, settings, output.load_job())
    except ClaimLost as error:
        log.warning("%s", error)
    except RankmillError as error:
        if error.transient:
            raise
        dispatch.fail(ledger, settings, record, error, None)


def _write_plan(ledger: Ledger, settings: Settings, record: JobRecord) -> bool:
    """Prepare and plan; False while another does."""
    claim = Claim.take(ledger.claims, record.job_id, PREPARATION, settings.claim_s)
    if claim is None:
        return False
    output = Output(record.spec.output_uri)
    with claim:
        tries = ledger.claims.begin_try(record.job_id, PREPARATION)
        if tries > settings.max_tries:
            raise RankmillError(
                f"preparing the input killed its worker {tries - 1} times; is the machine's "
                "memory smaller than RANKMILL_PREPARE_MEMORY?"
            )
        plan = _prepared_plan(settings, record, claim)
        ledger.claims.end_try(record.job_id, PREPARATION)
        claim.check()
        output.write_plan(plan)
    return True


def _prepared_plan(settings: Settings, record: JobRecord, claim: Claim) -> Plan:
    spec, output = record.spec, Output(record.spec.output_uri)
    files = find_inputs(spec)
    if job_id_for(spec, files) != record.job_id:
        raise InputError("the input changed after the job was submitted; submit it again")

    def progress(step: str, n_rows: int) -> None:
        log.info("job %s: %s: %d rows", record.job_id, step, n_rows)
        claim.progress(n_rows, 0)
        claim.check()
        if output.has_ended():
            raise ClaimLost(f"{output.uri} no longer waits for job {record.job_id}")

    with tempfile.TemporaryDirectory(prefix="rankmill-", dir=settings.scratch) as scratch:
        target = output.prepared_uri
        prepare(spec, files, target, Path(scratch), progress, settings.prepare_memory)
    source = read_source(target, (spec.query_col, spec.document_col))
    return make_plan(record.job_id, spec, source, candidate_columns(spec, files))
