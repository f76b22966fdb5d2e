"""The list of jobs costs Redis the same few round trips for any number of jobs."""

from __future__ import annotations

from pathlib import Path

from producer.jobs.listing import list_jobs
from producer.jobs.submit import submit
from rankmill.contract.job_state import JobState
from rankmill.ledger.jobs import Ledger
from tests.support.inputs import pairs, write


def test_a_list_of_jobs_takes_as_many_round_trips_for_eight_jobs_as_for_one(
    tmp_path: Path, ledger: Ledger
) -> None:
    source = write(pairs(3, 5), tmp_path / "in.parquet")
    costs = []
    for n_jobs in (1, 8):
        for n in range(n_jobs):
            submit(source, tmp_path / f"out-{n}", model_id="null", shard_pairs=5)
        before = _reads(ledger)
        listed = list_jobs()
        costs.append(_reads(ledger) - before)
        assert [each.state for each in listed] == [JobState.WAITING] * n_jobs
    assert costs[0] == costs[1]


def _reads(ledger: Ledger) -> int:
    """Return how often the server has read from its clients."""
    return int(ledger.redis.info("stats")["total_reads_processed"])
