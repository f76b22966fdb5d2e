"""A host that cannot do a job's work leaves it to others; a job that no host can do fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.doctor.broker import check_redis
from producer.jobs.listing import list_jobs
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, SCORE_QUEUE
from rankmill.errors import JobFailed
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.support.inputs import pairs, read_output, wait_for, write
from tests.support.nodes import Nodes, missing, nodes, read_only
from worker.health import complaints, declining

N_SHARDS = 20
FAULTS = ["missing", "read-only", "narrow", "models", "input"]


@pytest.fixture
def bad_nodes(broker_url: str, tmp_path: Path, ledger: Ledger) -> Iterator[Nodes]:
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
        wait_for(lambda: len(ledger.workers.takers(SCORE_QUEUE)) == len(FAULTS))
        yield started


def test_bad_hosts_leave_their_work_to_good_ones(
    bad_nodes: Nodes, tmp_path: Path, ledger: Ledger
) -> None:
    source = write(pairs(N_SHARDS, 50), tmp_path / "input" / "in.parquet")
    hopeless = submit(source, tmp_path / "shared" / "bad", model_id="null:400", shard_pairs=50)
    with pytest.raises(JobFailed):
        hopeless.wait(timeout_s=60)
    message = hopeless.status().message
    assert all(f"(on {host})" in message for host in FAULTS), message
    assert "does not hold job" in message and "read-only" in message and "does every" in message

    for host in ("good-a", "good-b"):
        bad_nodes.start(host)
    wait_for(lambda: len(ledger.workers.takers(CONTROL_QUEUE)) == len(FAULTS) + 1)
    job = submit(source, tmp_path / "shared" / "out", model_id="null:400", shard_pairs=50)
    wait_for(lambda: job.status().state != "running" or "declined: " in list_jobs()[0].reason)
    assert job.wait(timeout_s=90).state == "succeeded"
    rows = read_output(tmp_path / "shared" / "out")
    assert len({row["doc_id"] for row in rows}) == len(rows) == 50 * N_SHARDS
    declines = ledger.declines.of_job(job.job_id, ledger.now())
    assert len(declines) >= 3 and {decline.host for decline in declines} <= set(FAULTS)

    # Their health, doctor and log say why, in a few lines; nothing was written without the mount.
    found = {finding.message for finding in check_redis(settings())}
    for host in FAULTS:
        runtime = tmp_path / f"runtime-{host}" / f"rankmill-{os.getuid()}"
        assert not complaints(runtime, 60) and declining(runtime)[0].startswith(f"worker@{host} ")
        assert any(line.startswith(f"declines work: worker@{host} ") for line in found), found
        log = bad_nodes.log(host)
        assert 1 <= log.count("work declined, queue paused") <= log.count("Retry in 0s") <= 12
        assert "Traceback" not in log
    pid = bad_nodes.workers["missing"].pid
    assert os.listdir(f"/proc/{pid}/root{tmp_path / 'shared'}") == []
