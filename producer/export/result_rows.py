"""Read a finished job's ranked rows, query by query, with the texts that the model read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import pyarrow as pa

from producer.quality.drift.ranked import ROW, Ranked
from rankmill import storage
from rankmill.contract.plan import CANDIDATES_COLUMN
from rankmill.errors import InputError
from rankmill.output.output import Job
from rankmill.tables.files import read_files
from rankmill.tables.ids import as_text
from rankmill.tables.parquet import read_footer
from rankmill.tables.titles import scored_documents

_BATCH_ROWS = 4096


class ResultRow(NamedTuple):
    """A ranked row with its texts; an id is None where the job has none."""

    query_id: str | None
    doc_id: str | None
    query: str
    document: str
    logit: float
    score: float
    rank: int


class _Text(NamedTuple):
    key: str
    doc_id: str | None
    query: str
    document: str


def column_names(ranked: Ranked) -> list[str]:
    """Return the columns of the parts, those of candidates in place of their list."""
    schema = read_footer(storage.stat(ranked.output.part_uri(0))).schema
    if ranked.job.plan.columns.candidates is None:
        return list(schema.names)
    candidate = schema.field(CANDIDATES_COLUMN).type.value_type
    own = [name for name in schema.names if name != CANDIDATES_COLUMN]
    return [*own, *(field.name for field in candidate)]


def tables(ranked: Ranked, names: list[str]) -> Iterator[pa.Table]:
    """Yield the named columns of all parts, a row for each candidate."""
    for shard_index in range(ranked.job.plan.n_shards):
        for table in ranked.rows(shard_index, names):
            yield table.drop_columns([ROW])


def queries_with_texts(ranked: Ranked) -> Iterator[list[ResultRow]]:
    """Yield the rows of each query in the parts' order, with texts from the job's input.

    The parts keep the order of the input's queries, so that both are read once, side by side, with
    one query in memory.

    Raises:
        InputError: the parts have no ids to find the texts by, or the input has changed.
    """
    columns = ranked.job.plan.columns
    for role, column in (("query", columns.group_key), ("document", _document_key(ranked.job))):
        if column not in columns.kept:
            raise InputError(
                f"{ranked.output.uri}: its texts are found by column '{column}', which the job did "
                f"not keep; run it again with the {role}'s column '{column}' in --keep-cols"
            )
    of_input = groupby(_texts(ranked.job), itemgetter(0))
    key, those = None, iter(list[_Text]())
    for wanted, rows in groupby(_ranked_rows(ranked), itemgetter(0)):
        while key != wanted:
            key, those = next(of_input, (None, those))
            if key is None:
                raise InputError(
                    f"{ranked.output.uri}: the input has no query '{wanted}' any more; run the "
                    "job again"
                )
        texts = _by_document(ranked, those)
        yield [_with_text(row, texts, ranked) for row in rows]


def _by_document(ranked: Ranked, those: Iterable[_Text]) -> dict[str | None, _Text]:
    """Return a query's texts by document.

    Raises:
        InputError: rows of one id, or without an id, have texts that differ.
    """
    texts: dict[str | None, _Text] = {}
    for text in those:
        known = texts.setdefault(text.doc_id, text)
        if known != text:
            name = "without an id" if text.doc_id is None else f"'{text.doc_id}'"
            raise InputError(
                f"{ranked.output.uri}: query '{text.key}' has documents {name} with different "
                "texts; give each an id of its own"
            )
    return texts


def _document_key(job: Job) -> str:
    return job.plan.columns.doc_id or job.plan.columns.document


def _with_text(
    row: tuple[str, str, float, float, int], texts: dict[str | None, _Text], ranked: Ranked
) -> ResultRow:
    key, document, logit, score, rank = row
    if document not in texts:
        raise InputError(
            f"{ranked.output.uri}: the input has no document '{document}' of query '{key}' any "
            "more; run the job again"
        )
    found, columns = texts[document], ranked.job.plan.columns
    query_id = None if columns.query_id is None else key
    doc_id = None if columns.doc_id is None else document
    return ResultRow(query_id, doc_id, found.query, found.document, logit, score, rank)


def _ranked_rows(ranked: Ranked) -> Iterator[tuple[str, str, float, float, int]]:
    columns = ranked.job.plan.columns
    keys = [columns.kept[columns.group_key], columns.kept[_document_key(ranked.job)]]
    for table in tables(ranked, [*dict.fromkeys(keys), "logit", "score", "rank"]):
        values = [as_text(table[name]).to_pylist() for name in keys]
        values += [table[name].to_pylist() for name in ("logit", "score", "rank")]
        yield from zip(*values, strict=True)


def _texts(job: Job) -> Iterator[_Text]:
    """Yield the texts of the input's rows that have a query, in order."""
    columns = job.plan.columns
    keys = [columns.group_key, _document_key(job)]
    names = list(dict.fromkeys([*keys, *columns.texts]))
    for table in read_files(
        job.plan.files, job.plan.schema, names, 0, _BATCH_ROWS, job.spec.damaged
    ):
        texts = [table[columns.query], scored_documents(table, columns)]
        values = [as_text(column).to_pylist() for column in (*(table[key] for key in keys), *texts)]
        yield from (_Text(*each) for each in zip(*values, strict=True) if each[0] is not None)
