"""A job whose shards are scored but that is not finished, with texts that try to act on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.output.output import Job
from tests.support.finished import planned
from worker import models
from worker.shard.run import run_shard
from worker.shard.score import ShardWork

EVIL = "<script>alert('x')</script>"
AWKWARD = "$x^$<script>"


def rows(n_queries: int = 6, n_candidates: int = 5) -> list[dict[str, Any]]:
    found = [
        {"query_id": f"q{q}", "doc_id": f"d{q}-{d}", "query": f"query {q}", "document": f"text {d}"}
        for q in range(n_queries)
        for d in range(n_candidates)
    ]
    found[3]["document"] = None
    found[7].update(document=" ", query=EVIL, doc_id=f"{EVIL}&amp;")
    return found


def scored(folder: Path, **options: Any) -> Job:
    """Return an unfinished job whose shards are all reported, by two workers in turn."""
    options = {"shard_pairs": 7, "max_reject_rate": 0.5, **options}
    job = planned(rows(), folder, **options)
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    for n in range(job.plan.n_shards):
        loaded = models.load(job.spec)
        work = ShardWork(
            loaded,
            f"host-{n % 2}:{AWKWARD}",
            4,
            n_deaths=int(n == 1),
            n_retries=2 * int(n == 2),
        )
        run_shard(job, job.shard(n), work)
    return job
