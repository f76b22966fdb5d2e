"""Submit a job: check it, write it under the output, put it to work.

`producer.submit` of `producer/calls/launch.py` is the call for users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from producer.jobs.check import Checked, check
from producer.jobs.handle import JobHandle
from rankmill import storage
from rankmill.contract.base import parse_given
from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.job_id import job_id_for
from rankmill.dispatch import Dispatcher
from rankmill.errors import JobFailed, OutputTaken
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import check_server, check_takes_writes
from rankmill.output import cleanup, control_folder
from rankmill.output.local_run import Hold, check_free, hand_to_cluster, last_run
from rankmill.output.output import Output
from rankmill.settings import settings

# Options that decide which rows a job accepts and do not change the scores of the others. The value
# is the one that accepts all rows that any other value accepts.
_ACCEPTANCE: dict[str, str | None] = {
    "max_reject_rate": None,
    "duplicates": "keep",
    "damaged": "reject",
}


def submit(
    input_uri: str | Path, output_uri: str | Path, *, overwrite: bool = False, **options: Any
) -> JobHandle:
    """Submit a job as `submit_spec` does, from the fields of a JobSpec."""
    values = {"input_uri": str(input_uri), "output_uri": str(output_uri), **options}
    return submit_spec(parse_given(JobSpec, values, "submit"), overwrite=overwrite)


def submit_spec(spec: JobSpec, *, overwrite: bool = False) -> JobHandle:
    """Check a job and submit it as `submit_checked` does.

    Raises:
        InputError: the input or an option is bad; nothing was written.
    """
    return submit_checked(check(spec), overwrite=overwrite)


def submit_checked(job: Checked, *, overwrite: bool = False, hold: Hold | None = None) -> JobHandle:
    """Submit a checked job to the cluster of RANKMILL_BROKER_URL.

    The same job again does nothing where it is done, and continues where it is not.

    Args:
        job: the checked job.
        overwrite: remove another job's result from the output first.
        hold: that of a run on this machine with its private cluster. It keeps others from the
            output.

    Raises:
        OutputTaken: the output holds another job's result, or other files.
        StorageRefused: the output cannot be written to, or its storage lets two writers both win;
            nothing was changed.
        BrokerUnavailable: Redis does not answer, or refuses writes; nothing was changed.
    """
    ledger = Ledger.connect(settings())
    dispatcher = Dispatcher(ledger, settings())
    check_server(ledger.redis)
    check_takes_writes(ledger.redis)  # before storage is changed
    output = job.output
    before = _job_to_continue(job, ledger, overwrite)
    record = before if before is not None else job.record
    handle = JobHandle(record.job_id, output, ledger)
    if before is not None and output.is_success() and not output.lost_parts():
        check_reject_rate(output, record.spec.max_reject_rate)
        return handle
    if before is not None and _is_running(record.job_id, ledger):
        if before != output.read_job():
            output.write_job(before)
        return handle
    control_folder.check_writable(output.uri, output.control_uri)
    take_output(handle, hold)
    if before is not None:
        continue_job(dispatcher, output, before)
        return handle
    if output.read_job() is not None:
        dispatcher.replace(output, job.record, job.plan)
        return handle
    cleanup.remove_result(output)
    try:
        output.write_job(job.record)
        if job.plan is not None:
            output.write_plan(job.plan)
        dispatcher.start_again(output)
    except BaseException:
        cleanup.remove_result(output)  # a job that Redis does not know would look as if it ran
        raise
    return handle


def take_output(handle: JobHandle, hold: Hold | None) -> None:
    """Make this job the only one that works on its output, before anything there is changed.

    Raises:
        OutputTaken: a `rankmill run` works on it.
    """
    if hold is not None:
        hold.take(handle.output, handle.job_id, settings().broker_url)
    else:
        check_free(handle.output)
        hand_to_cluster(handle.output, handle.job_id)


def continue_job(dispatcher: Dispatcher, output: Output, record: JobRecord) -> None:
    """Put the job of an output to work again, with the rows that `record` accepts.

    On an error the earlier record is written back.
    """
    before = output.read_job()
    with cleanup.restored_on_error(output):
        cleanup.reopen(output)
        if record == before:
            dispatcher.start_again(output)
            return
        try:
            output.write_job(record)
            dispatcher.start_again(output)
        except BaseException:
            if before is not None:
                output.write_job(before)
            raise


def check_reject_rate(output: Output, max_reject_rate: float) -> None:
    """Check the rejects of a finished result against a rate.

    Raises:
        JobFailed: it has more rejects than the rate allows.
    """
    manifest = output.read_manifest()
    if manifest is not None and manifest.n_rejected > max_reject_rate * manifest.n_rows:
        raise JobFailed(
            f"{output.uri} is finished with {manifest.n_rejected} of {manifest.n_rows} rows "
            f"rejected, more than --max-reject-rate {max_reject_rate:g} allows; it stays as it is"
        )


def accepting(record: JobRecord, spec: JobSpec, content_id: str | None) -> JobRecord:
    """Return the record with the acceptance options of `spec`, and otherwise unchanged."""
    changes = {name: getattr(spec, name) for name in _ACCEPTANCE}
    accepted = record.spec.model_copy(update=changes)
    if accepted == record.spec:
        return record
    return record.model_copy(update={"spec": accepted, "content_id": content_id})


def _job_to_continue(job: Checked, ledger: Ledger, overwrite: bool) -> JobRecord | None:
    """Return the record of the same job that is already there; None where the job begins.

    Raises:
        OutputTaken: the output holds something else, or another job runs there.
    """
    output = job.output
    foreign = cleanup.foreign_names(output)
    if foreign:
        raise OutputTaken(
            f"{output.uri} holds other files ({foreign[0]}); give an empty or a new folder"
        )
    record = output.read_job()
    if record is None:
        return None
    if overwrite or not _is_same(record, job):
        _check_replaceable(record, job, ledger, overwrite)
        return None
    changed = output.changed_part()
    if changed is not None:
        raise OutputTaken(
            f"{storage.child(output.uri, changed)} is not the part that job {record.job_id} wrote; "
            "remove it to have its rows scored again, or --overwrite all parts"
        )
    if not record.prepares and output.read_plan() is None:
        return None  # its submitter died before the plan was written
    return accepting(record, job.record.spec, job.record.content_id)


def _is_same(record: JobRecord, job: Checked) -> bool:
    """Return whether a job is the one of a record, or accepts more rows and is otherwise the same.

    Scores under a stricter rule are valid under a looser one, but not the other way round. The
    reject rate may change both ways: it is compared with the counts at the end.
    """
    new = job.record
    if new.job_id != new.content_id:  # a schedule named it
        return record.job_id == new.job_id
    as_before = {name: getattr(record.spec, name) for name in _ACCEPTANCE}
    before = new.spec.model_copy(update=as_before)
    if job_id_for(before, job.files) != (record.content_id or record.job_id):
        return False
    return all(
        getattr(new.spec, name) in (as_before[name], looser)
        for name, looser in _ACCEPTANCE.items()
        if looser is not None
    )


def _check_replaceable(record: JobRecord, job: Checked, ledger: Ledger, overwrite: bool) -> None:
    if _is_running(record.job_id, ledger):
        raise OutputTaken(f"{job.output.uri}: job {record.job_id} is still running there")
    output, run = job.output, last_run(job.output)
    has_parts, is_reported = bool(output.part_names()), bool(output.reported_shards())
    was_removed = not has_parts and is_reported
    # Nothing was scored, and no process works on it any more.
    is_over = output.has_ended() or (run is not None and not run.is_alive)
    is_void = is_over and not output.is_success() and not has_parts and not is_reported
    if overwrite or was_removed or is_void:
        return
    ignored = {"version", "minor", "priority", "reuse_from"}
    options = [
        name
        for name in JobSpec.model_fields
        if name not in ignored and getattr(record.spec, name) != getattr(job.record.spec, name)
    ]
    raise OutputTaken(
        f"{output.uri} holds the result of another job ({record.job_id}, {output.state()}: "
        f"other {', '.join(options) or 'files of the input, or their content'}); give another "
        "folder, or --overwrite"
    )


def _is_running(job_id: str, ledger: Ledger) -> bool:
    counts = ledger.counts(job_id)
    return counts is not None and not counts.state.is_final
