"""A job whose rows are done is accepted under another rule without being scored again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.jobs.control import resume
from producer.jobs.submit import submit
from rankmill.contract.results import Failure
from rankmill.dispatch import Dispatcher
from rankmill.errors import InputError, JobFailed, OutputTaken
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Output
from rankmill.settings import settings
from tests.support.finished import finished, planned
from tests.support.inputs import part_bytes
from worker.finalize import finalize

ROWS = [
    {"query_id": f"q{n // 3}", "doc_id": f"d{n}", "query": f"q{n // 3}", "document": str(n)}
    for n in range(30)
]
ROWS[7]["document"] = ""


@pytest.fixture
def failed(tmp_path: Path, broker_url: str) -> Output:
    """Return an output with all rows done and one rejected, which is more than the job allows."""
    output = finished(planned(ROWS, tmp_path, shard_pairs=10))
    cleanup.reopen(output)
    fail(output, "1 of 30 rows were rejected")
    return output


def fail(output: Output, message: str) -> None:
    record = output.read_job()
    assert record is not None
    values = {"job_id": record.job_id, "message": message, "exit_code": 1, "shard_index": None}
    output.write_failure(Failure(**values, failed_at=datetime.now(UTC)))


def again(output: Output, **options: object) -> str:
    """Submit the same job with other options, and finalize it if nothing is left to score."""
    record = output.read_job()
    assert record is not None
    given = {"model_id": "null", "shard_pairs": 10, **options}
    handle = submit(record.spec.input_uri, output.uri, **given)
    finalize(Dispatcher(handle.ledger, settings()), handle.job_id, output.uri)
    return str(handle.status().state)


def test_the_same_command_with_a_higher_rate_accepts_what_is_scored(failed: Output) -> None:
    folder = Path(failed.uri)
    before = part_bytes(folder), {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert again(failed, max_reject_rate=0.02) == "failed"
    assert again(failed, max_reject_rate=0.1) == "succeeded with rejects"
    after = part_bytes(folder), {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert after == before
    manifest = failed.read_manifest()
    assert manifest is not None and manifest.spec.max_reject_rate == 0.1
    assert again(failed, max_reject_rate=0.1) == "succeeded with rejects"
    with pytest.raises(JobFailed, match="finished with 1 of 30 rows rejected, more than"):
        again(failed)
    assert failed.is_success()
    with pytest.raises(OutputTaken, match="succeeded with rejects: other top_k"):
        again(failed, top_k=1, max_reject_rate=0.1)


def test_resume_takes_a_higher_rate(failed: Output, dispatcher: Dispatcher) -> None:
    from producer.jobs.handle import find_job

    handle = find_job(failed.uri)
    resume(handle, max_reject_rate=0.1)
    finalize(dispatcher, handle.job_id, failed.uri)
    assert handle.status().state == "succeeded with rejects"
    assert again(failed, max_reject_rate=0.1) == "succeeded with rejects"
    with pytest.raises(JobFailed):
        resume(handle, max_reject_rate=0.0)


@pytest.mark.parametrize("advice", [{"duplicates": "keep"}, {"damaged": "reject"}])
def test_a_looser_rule_keeps_what_is_scored_and_a_stricter_one_does_not(
    failed: Output, advice: dict[str, str]
) -> None:
    assert again(failed, max_reject_rate=0.1, **advice) == "succeeded with rejects"
    with pytest.raises(OutputTaken, match=next(iter(advice))):
        again(failed, max_reject_rate=0.1)


def test_a_failed_job_without_shards_does_not_block_its_output(
    tmp_path: Path, broker_url: str
) -> None:
    job = planned(ROWS, tmp_path)
    submit(job.spec.input_uri, job.spec.output_uri, model_id="null", shard_pairs=10)
    with pytest.raises(OutputTaken, match="still running"):
        again(job.output, cluster=True)
    ledger = Ledger.connect(settings())
    fail(job.output, "the rows of a query are scattered")
    ledger.redis.flushall()
    again(job.output, top_k=2)
    record = job.output.read_job()
    assert record is not None and record.spec.top_k == 2 and not job.output.has_ended()


def test_reuse_of_a_failed_job_says_why_not(failed: Output, tmp_path: Path) -> None:
    why = "its job is failed .1 of 30 rows were rejected.; only a success is reused"
    with pytest.raises(InputError, match=why):
        submit(tmp_path / "in.parquet", tmp_path / "new", model_id="null", reuse_from=failed.uri)
