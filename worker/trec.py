"""Write a job's result as a TREC run file, which trec_eval and ir-measures read."""

from __future__ import annotations

from typing import IO

from rankmill import storage
from rankmill.contract.plan import FUSED_COLUMNS
from rankmill.output.output import Job
from rankmill.tables import parquet
from rankmill.tables.trec_lines import trec_lines

_BATCH_ROWS = 64 * 1024


def write_trec_run(job: Job) -> None:
    """Write `run.trec` with query, Q0, document, rank, logit and tag; queries in part order.

    It has the logit, because evaluators order by this number and not by the rank, and sigmoid
    rounds different logits to the same score. A job that fuses has fused_rank and fused_score.

    Raises:
        InputError: an id has a blank or is not UTF-8, so that it does not fit into a line.
    """
    columns = job.plan.columns
    assert columns.query_id and columns.doc_id
    names = [columns.kept[name] for name in (columns.query_id, columns.doc_id)]
    score, rank = FUSED_COLUMNS if job.spec.fuse is not None else ("logit", "rank")

    def write(file: IO[bytes]) -> None:
        for shard_index in range(job.plan.n_shards):
            part = storage.stat(job.output.part_uri(shard_index))
            for table in parquet.read_rows(part, [*names, rank, score], 0, _BATCH_ROWS):
                file.write("".join(trec_lines(table, names, (rank, score))).encode())

    storage.publish(job.output.trec_run_uri, write)
