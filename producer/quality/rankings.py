"""Read how a finished job and its input rank judged queries, in the form ir-measures takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from producer.quality.qrels import Qrels
from rankmill import storage
from rankmill.contract.plan import CANDIDATES_COLUMN, InputFile
from rankmill.errors import InputError
from rankmill.output.output import Job, Output
from rankmill.tables import parquet
from rankmill.tables.casts import Inexact
from rankmill.tables.files import read_files
from rankmill.tables.ids import as_text

# Query id to document id to a score that falls with the place, without ties.
Run = dict[str, dict[str, float]]
FileT = TypeVar("FileT")

_N_FILES_AT_ONCE = 8
_BATCH_ROWS = 64 * 1024
_ROWS = pa.schema(
    [("query", pa.large_string()), ("doc", pa.large_string()), ("order", pa.float64())]
)


def finished_job(output: Output) -> Job:
    """Return the job of an output that has succeeded.

    Raises:
        InputError: the job has not succeeded.
        JobUnknown: no job was submitted there.
    """
    state = output.state()
    if not state.is_success:
        why = output.loss() or "it can be read once it has succeeded"
        raise InputError(f"{output.uri}: the job's state is '{state}'; {why}")
    return output.load_job()


def job_with_ids(output: Output) -> Job:
    """Return the job of an output that has succeeded and has ids in its parts.

    Raises:
        InputError: the job has not succeeded, or its parts have no ids.
        JobUnknown: no job was submitted there.
    """
    job = finished_job(output)
    columns = job.plan.columns
    for what, column in (("query", columns.query_id), ("doc", columns.doc_id)):
        if column is None:
            raise InputError(
                f"{output.uri}: the job has no {what} ids, by which judgments name their pairs; "
                f"run it on an input that has them (--{what}-id-col)"
            )
        if column not in columns.kept:
            raise InputError(
                f"{output.uri}: the job kept no column '{column}', by which judgments name their "
                "pairs; run it with that among --keep-cols"
            )
    return job


def ranked_before(job: Job, column: str | None, judged: Qrels) -> pa.Table:
    """Return the input's rows of judged queries, best first by a column, or as they are."""
    rows = rows_before(job, column, judged)
    return rows if column is None else rows.sort_by([("order", "descending")])


def rows_before(job: Job, column: str | None, judged: Qrels) -> pa.Table:
    """Return the input's rows of judged queries, with a column's values as `order`."""
    columns = job.plan.columns
    names = [str(columns.query_id), str(columns.doc_id), *([] if column is None else [column])]

    def read(file: InputFile) -> Iterator[pa.Table]:
        return read_files([file], job.plan.schema, names, 0, _BATCH_ROWS, job.spec.damaged)

    return _read(job.plan.files, read, names, judged)


def ranked_after(output: Output, job: Job, judged: Qrels, column: str = "rank") -> pa.Table:
    """Return the parts' rows of judged queries, best first by a column of ranks."""
    return rows_after(output, job, judged, column).sort_by("order")


def rows_after(output: Output, job: Job, judged: Qrels, column: str) -> pa.Table:
    """Return the parts' rows of judged queries, with a result column's values as `order`."""
    columns = job.plan.columns
    query_id, doc_id = (columns.kept[str(name)] for name in (columns.query_id, columns.doc_id))
    names = [query_id, doc_id, column]
    is_folded = columns.candidates is not None

    def read(shard_index: int) -> Iterator[pa.Table]:
        part = storage.stat(output.part_uri(shard_index))
        stored = [query_id, CANDIDATES_COLUMN] if is_folded else names
        for table in parquet.read_rows(part, stored, 0, _BATCH_ROWS):
            yield unfolded(table, names) if is_folded else table

    return _read(range(job.plan.n_shards), read, names, judged)


def unfolded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Turn a row per query into a row per candidate, with the query's columns repeated."""
    lists = table[CANDIDATES_COLUMN].combine_chunks()
    candidates, parents = lists.flatten(), pc.list_parent_indices(lists)
    arrays = [
        table[name].take(parents)
        if name in table.column_names
        else pc.struct_field(candidates, name)
        for name in names
    ]
    return pa.table(arrays, names=list(names))


def _read(
    files: Iterable[FileT],
    read: Callable[[FileT], Iterable[pa.Table]],
    names: Sequence[str],
    judged: Qrels,
) -> pa.Table:
    """Return the judged queries' rows of all files, in order of files and rows, as `_ROWS`."""
    queries = pa.array(judged, _ROWS.field("query").type)

    def of_judged(file: FileT) -> pa.Table:
        tables = [
            as_rows(table, names).filter(pc.field("query").isin(queries)) for table in read(file)
        ]
        return pa.concat_tables([_ROWS.empty_table(), *tables])

    with ThreadPoolExecutor(_N_FILES_AT_ONCE) as pool:
        return pa.concat_tables(pool.map(of_judged, files))


def as_rows(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return query id, document id and the order, null if there is no such column."""
    columns = [table[name] for name in names]
    if len(columns) < len(_ROWS):
        columns.append(pa.nulls(table.num_rows))
    try:
        ids = [as_text(column) for column in columns[:2]]
    except Inexact as error:
        raise InputError(
            f"the id {error} is not a whole number; judgments have no such ids"
        ) from error
    return pa.table([*ids, columns[2].cast(pa.float64(), safe=False)], schema=_ROWS)


def top(rows: pa.Table, depth: int) -> Run:
    """Return the first `depth` documents of each query."""
    run: Run = {}
    for batch in rows.to_batches(_BATCH_ROWS):
        for query, doc in zip(batch["query"].to_pylist(), batch["doc"].to_pylist(), strict=True):
            found = run.setdefault(query, {})
            if len(found) < depth and doc is not None and doc not in found:
                found[doc] = float(depth - len(found))
    return run
