"""A host that cannot do a job's work leaves it to others; a job that no host can do fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, SCORE_QUEUE
from rankmill.errors import JobFailed
from rankmill.ledger.jobs import Ledger
from tests.support.inputs import pairs, read_output, wait_for, write
from tests.support.nodes import Nodes, missing, nodes, read_only

N_SHARDS = 20
FAULTS = ["missing", "read-only", "narrow", "models", "input"]


@pytest.fixture
def cluster(broker_url: str, tmp_path: Path, ledger: Ledger) -> Iterator[Nodes]:
    """Yield five bad hosts and no good one; the shared folders are there and empty."""
    for shared in ("shared", "input", "outside"):
        (tmp_path / shared).mkdir()
    with nodes(tmp_path) as started:
        started.start("missing", missing(tmp_path / "shared"))
        started.start("read-only", read_only(tmp_path / "shared"))
        started.start(
            "narrow", environment={"RANKMILL_ALLOWED_PREFIXES": str(tmp_path / "outside")}
        )
        started.start("models", environment={"RANKMILL_ALLOWED_MODELS": "demo"})
        started.start("input", missing(tmp_path / "input"), queues=(SCORE_QUEUE,))
        wait_for(lambda: len(ledger.takers(SCORE_QUEUE)) == len(FAULTS))
        yield started


def test_a_bad_host_leaves_its_work_to_others(
    cluster: Nodes, tmp_path: Path, ledger: Ledger
) -> None:
    source = write(pairs(N_SHARDS, 50), tmp_path / "input" / "in.parquet")
    bad = submit(source, tmp_path / "shared" / "bad", model_id="null:400", shard_pairs=50)
    with pytest.raises(JobFailed, match=r"\(on "):
        bad.wait(timeout_s=60)
    message = bad.status().message
    assert sum(host in message for host in FAULTS) >= 3, message

    for host in ("good-a", "good-b"):
        cluster.start(host)
    wait_for(lambda: len(ledger.takers(CONTROL_QUEUE)) == len(FAULTS) + 1)
    good = submit(source, tmp_path / "shared" / "out", model_id="null:400", shard_pairs=50)
    assert good.wait(timeout_s=90).state == "succeeded"
    rows = read_output(tmp_path / "shared" / "out")
    assert len({row["doc_id"] for row in rows}) == len(rows) == 50 * N_SHARDS
    declines = ledger.declines.of_job(good.job_id, ledger.now())
    reasons = {decline.host: decline.reason for decline in declines}
    assert reasons.keys() <= set(FAULTS) and len(reasons) >= 3
