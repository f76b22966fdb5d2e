"""The result as a TREC run file, which trec_eval and ir-measures read."""

from __future__ import annotations

from typing import IO

from rankmill import parquet, storage
from rankmill.output import Job

_BATCH_ROWS = 64 * 1024
_TAG = "rankmill"


def write_trec_run(job: Job) -> None:
    """Write `_rankmill/run.trec`: query, Q0, document, rank, logit, tag; queries in part order.

    The logit, because sigmoid rounds different logits to the same score, and evaluators order by
    this number and not by the rank.
    """
    columns = job.plan.columns
    assert columns.query_id and columns.doc_id
    names = [columns.kept[columns.query_id], columns.kept[columns.doc_id], "rank", "logit"]

    def write(file: IO[bytes]) -> None:
        for shard_index in range(job.plan.n_shards):
            part = storage.stat(job.output.part_uri(shard_index))
            for table in parquet.read_rows(part, names, 0, _BATCH_ROWS):
                rows = zip(*(table[name].to_pylist() for name in names), strict=True)
                lines = (f"{q} Q0 {d} {rank} {logit:.9g} {_TAG}\n" for q, d, rank, logit in rows)
                file.write("".join(lines).encode())

    storage.publish(job.output.trec_run_uri, write)
