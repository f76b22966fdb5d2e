"""Write a job's result as a TREC run file, which trec_eval and ir-measures read."""

from __future__ import annotations

from typing import IO

import pyarrow as pa

from rankmill import storage
from rankmill.contract.plan import FUSED_COLUMNS
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables import parquet
from rankmill.tables.casts import Inexact
from rankmill.tables.ids import as_text, comparable

_BATCH_ROWS = 64 * 1024
_TAG = "rankmill"


def write_trec_run(job: Job) -> None:
    """Write `run.trec` with query, Q0, document, rank, logit and tag; queries in part order.

    A job that fuses has fused_rank and fused_score in place of rank and logit.

    It has the logit, because evaluators order by this number and not by the rank, and sigmoid
    rounds different logits to the same score.

    Raises:
        InputError: an id has a blank or is not UTF-8, so that it does not fit into a line.
    """
    columns = job.plan.columns
    assert columns.query_id and columns.doc_id
    ids = (columns.query_id, columns.doc_id)
    names = [columns.kept[name] for name in ids]
    is_fused = job.spec.fuse is not None
    numbers = FUSED_COLUMNS[::-1] if is_fused else ("rank", "logit")
    n_digits = 17 if is_fused else 9  # that keep float64 and float32 exact

    def write(file: IO[bytes]) -> None:
        for shard_index in range(job.plan.n_shards):
            part = storage.stat(job.output.part_uri(shard_index))
            for table in parquet.read_rows(part, [*names, *numbers], 0, _BATCH_ROWS):
                words = [_words(table[kept], name) for kept, name in zip(names, ids, strict=True)]
                values = (table[name].to_pylist() for name in numbers)
                rows = zip(*words, *values, strict=True)
                lines = (
                    f"{q} Q0 {d} {rank} {score:.{n_digits}g} {_TAG}\n" for q, d, rank, score in rows
                )
                file.write("".join(lines).encode())

    storage.publish(job.output.trec_run_uri, write)


def _words(ids: pa.ChunkedArray, column: str) -> list[str]:
    values = comparable(ids)
    if pa.types.is_large_binary(values.type):
        return [_word(value, column) for value in values.to_pylist()]
    try:
        texts = as_text(ids).cast(pa.large_binary())
    except Inexact as error:
        raise InputError(f"{column} {error} is not whole; write such ids as text") from error
    return [_word(value, column) for value in texts.to_pylist()]


def _word(value: bytes | None, column: str) -> str:
    word = None if value is None else value.decode(errors="replace")
    if word is None or word.split() != [word] or word.encode() != value:
        raise InputError(
            f"{column} {word!r} cannot be in a TREC run, where ids are UTF-8 without blanks; "
            "submit the job without --trec-run"
        )
    return word
