"""How well a finished job ranks judged queries, beside the order that its input had.

The measures are ir-measures' own, which are those of trec_eval: a grade of 1 and more is relevant,
nDCG takes grades as gains, and a document without a judgment is not relevant. Means are taken over
the queries of the judgments that have a relevant document, found or not, as `trec_eval -c` does: a
query without candidates counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from producer.qrels import Qrels
from rankmill import parquet, storage
from rankmill.errors import InputError
from rankmill.output import Job, Output
from rankmill.rows import read_files
from rankmill.spec import CANDIDATES_COLUMN, InputFile

if TYPE_CHECKING:
    from ir_measures import Measure

# Query id to document id to a score that falls with the place; no two are equal.
Run = dict[str, dict[str, float]]
FileT = TypeVar("FileT")

_CUTOFF = 10  # of nDCG and MRR
_SCORE = "score"
_N_FILES_AT_ONCE = 8
_BATCH_ROWS = 64 * 1024
_ROWS = pa.schema(
    [("query", pa.large_string()), ("doc", pa.large_string()), ("order", pa.float64())]
)
_N_FLIPS = 100_000
_SIGNS_AT_ONCE = 2**22
_ROUNDING = 1e-9


class Comparison(BaseModel):
    """A measure's means before and after, and whether chance alone would make them differ so.

    Attributes:
        p_value: of `sign_flip_test`, for this measure by itself.
    """

    model_config = ConfigDict(frozen=True)

    measure: str
    before: float
    after: float
    p_value: float
    n_better: int
    n_worse: int
    n_equal: int


class Evaluation(BaseModel):
    """What `eval --json` prints.

    Attributes:
        top_k: rows that the job kept of each query, beyond which nothing can be found after.
        before_by: what the candidates were ordered by before, the input's `score` or its rows.
        n_judged: queries of the judgments.
        n_queries: those of them with a relevant document, which the means are taken over.
        n_in_input: those of `n_queries` that the input has candidates of.
        n_in_parts: those of `n_queries` that the parts have rows of.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    output_uri: str
    top_k: int | None
    before_by: Literal["score", "rows"]
    n_judged: int
    n_queries: int
    n_in_input: int
    n_in_parts: int
    comparisons: tuple[Comparison, ...]


def evaluate(output: Output, qrels: Qrels, recall_at: Sequence[int] = (100,)) -> Evaluation:
    """Compare the order of a finished job's input with that of its parts.

    Before are all candidates of the input, those too that were rejected or cut by `top_k`: by its
    column `score` from high to low if there is one, else as the rows stand. After is by rank.
    Equal scores keep the order of the rows, where trec_eval takes that of the document ids. Where a
    query names a document twice, the better place counts.

    Args:
        recall_at: the cutoffs of recall, at least 1.

    Raises:
        InputError: the job is not finished or has no ids, its input has changed or has none of the
            judged queries, or ir-measures is not installed.
        JobUnknown: no job was submitted there.
    """
    measures = _measures(recall_at)
    job = _finished_job(output)
    judged = _with_relevant(qrels)
    depth = max((_CUTOFF, *recall_at))
    before_by = _before_by(job.plan.schema)
    before = _top(_before(job, before_by, judged), depth)
    if not before:
        raise InputError(
            f"{output.uri}: the input has none of the {len(judged):,} queries that have relevant "
            f"documents; is its column '{job.plan.columns.query_id}' what the judgments name?"
        )
    after = _top(_after(output, job, judged), depth)
    return Evaluation(
        job_id=job.job_id,
        output_uri=output.uri,
        top_k=job.spec.top_k,
        before_by=before_by,
        n_judged=len(qrels),
        n_queries=len(judged),
        n_in_input=len(before),
        n_in_parts=len(after),
        comparisons=_compare(measures, judged, before, after),
    )


def sign_flip_test(differences: np.ndarray, n_flips: int = _N_FLIPS, seed: int = 0) -> list[float]:
    """Two-sided p-values of paired differences, by permutation: no distribution is assumed.

    If before and after were the same system, each query's difference would as likely have the other
    sign. The p-value is the share of `n_flips` random choices of signs whose sum is at least as
    large as the one that was seen; that one counts as a choice too, so that no p-value is 0.

    The test is the randomization test of Smucker, Allan and Carterette, "A comparison of
    statistical significance tests for information retrieval evaluation", CIKM 2007; the count is
    Phipson and Smyth's, "Permutation p-values should never be zero", 2010.

    Args:
        differences: float64 (n_queries, n_measures); the measures share their choices of signs.
    """
    rng = np.random.default_rng(seed)
    seen = np.abs(differences.sum(axis=0)) - _ROUNDING
    n_as_large = np.ones(differences.shape[1])
    n_at_once = max(1, _SIGNS_AT_ONCE // len(differences))
    for start in range(0, n_flips, n_at_once):
        shape = (min(n_at_once, n_flips - start), len(differences))
        signs = 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1
        n_as_large += (np.abs(signs @ differences) >= seen).sum(axis=0)
    p_values: list[float] = (n_as_large / (n_flips + 1)).tolist()
    return p_values


def _measures(recall_at: Sequence[int]) -> list[Measure]:
    if min(recall_at, default=1) < 1:
        raise InputError(f"recall at {min(recall_at)}: a cutoff is at least 1")
    try:
        from ir_measures import RR, R, nDCG  # an extra, and nothing else needs it
    except ImportError as error:
        raise InputError(
            "evaluation needs ir-measures, which is not there: pip install ir-measures"
        ) from error
    return [nDCG @ _CUTOFF, RR @ _CUTOFF, *(R @ cutoff for cutoff in dict.fromkeys(recall_at))]


def _with_relevant(qrels: Qrels) -> Qrels:
    """The queries that a measure can tell something of."""
    judged = {query: docs for query, docs in qrels.items() if any(g > 0 for g in docs.values())}
    if not judged:
        raise InputError("the judgments have no relevant document: no grade is 1 or more")
    return judged


def _finished_job(output: Output) -> Job:
    state = output.state()
    if not state.is_success:
        raise InputError(
            f"{output.uri}: the job's state is '{state}'; it can be evaluated once it has succeeded"
        )
    job = output.load_job()
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


def _before_by(schema: pa.Schema) -> Literal["score", "rows"]:
    if _SCORE not in schema.names:
        return "rows"
    kind = schema.field(_SCORE).type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    return "score" if is_number else "rows"


def _before(job: Job, by: Literal["score", "rows"], judged: Qrels) -> pa.Table:
    """What the input holds of judged queries, best first."""
    columns = job.plan.columns
    names = [str(columns.query_id), str(columns.doc_id), *([_SCORE] if by == "score" else [])]

    def read(file: InputFile) -> Iterator[pa.Table]:
        return read_files([file], job.plan.schema, names, 0, _BATCH_ROWS, job.spec.damaged)

    rows = _read(job.plan.files, read, names, judged)
    return rows.sort_by([("order", "descending")]) if by == "score" else rows


def _after(output: Output, job: Job, judged: Qrels) -> pa.Table:
    """What the parts hold of judged queries, best first."""
    columns = job.plan.columns
    query_id, doc_id = (columns.kept[str(name)] for name in (columns.query_id, columns.doc_id))
    names = [query_id, doc_id, "rank"]
    is_folded = columns.candidates is not None

    def read(shard_index: int) -> Iterator[pa.Table]:
        part = storage.stat(output.part_uri(shard_index))
        stored = [query_id, CANDIDATES_COLUMN] if is_folded else names
        for table in parquet.read_rows(part, stored, 0, _BATCH_ROWS):
            yield _unfolded(table, names) if is_folded else table

    return _read(range(job.plan.n_shards), read, names, judged).sort_by("order")


def _unfolded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """A row for each candidate from a row for each query."""
    lists = table[CANDIDATES_COLUMN].combine_chunks()
    candidates = lists.flatten()
    queries = table[names[0]].take(pc.list_parent_indices(lists))
    fields = [pc.struct_field(candidates, name) for name in names[1:]]
    return pa.table([queries, *fields], names=list(names))


def _read(
    files: Iterable[FileT],
    read: Callable[[FileT], Iterable[pa.Table]],
    names: Sequence[str],
    judged: Qrels,
) -> pa.Table:
    """The judged queries' rows of all files, in order of files and rows, as `_ROWS` has them."""
    queries = pa.array(judged, _ROWS.field("query").type)

    def of_judged(file: FileT) -> pa.Table:
        tables = [
            _rows(table, names).filter(pc.field("query").isin(queries)) for table in read(file)
        ]
        return pa.concat_tables([_ROWS.empty_table(), *tables])

    with ThreadPoolExecutor(_N_FILES_AT_ONCE) as pool:
        return pa.concat_tables(pool.map(of_judged, files))


def _rows(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Query id, document id and what they are ordered by, which may not be there."""
    columns = [table[name] for name in names]
    if len(columns) < len(_ROWS):
        columns.append(pa.nulls(table.num_rows))
    cast = [
        column.cast(kind, safe=False) for column, kind in zip(columns, _ROWS.types, strict=True)
    ]
    return pa.table(cast, schema=_ROWS)


def _top(rows: pa.Table, depth: int) -> Run:
    """The first `depth` documents of each query."""
    run: Run = {}
    for batch in rows.to_batches(_BATCH_ROWS):
        for query, doc in zip(batch["query"].to_pylist(), batch["doc"].to_pylist(), strict=True):
            found = run.setdefault(query, {})
            if len(found) < depth and doc is not None and doc not in found:
                found[doc] = float(depth - len(found))
    return run


def _compare(
    measures: Sequence[Measure], judged: Qrels, before: Run, after: Run
) -> tuple[Comparison, ...]:
    values = [_by_query(measures, judged, run) for run in (before, after)]
    differences = values[1] - values[0]
    return tuple(
        Comparison(
            measure=str(measure),
            before=float(values[0][:, n].mean()),
            after=float(values[1][:, n].mean()),
            p_value=p_value,
            n_better=int(np.sum(differences[:, n] > 0)),
            n_worse=int(np.sum(differences[:, n] < 0)),
            n_equal=int(np.sum(differences[:, n] == 0)),
        )
        for n, (measure, p_value) in enumerate(
            zip(measures, sign_flip_test(differences), strict=True)
        )
    )


def _by_query(measures: Sequence[Measure], judged: Qrels, run: Run) -> np.ndarray:
    """float64 (n_queries, n_measures); 0 where the run has nothing of a query."""
    import ir_measures  # an extra, and nothing else needs it

    rows = {query: row for row, query in enumerate(judged)}
    columns = {measure: column for column, measure in enumerate(measures)}
    values = np.zeros((len(rows), len(columns)))
    for metric in ir_measures.iter_calc(measures, judged, run):
        values[rows[metric.query_id], columns[metric.measure]] = metric.value
    return values
