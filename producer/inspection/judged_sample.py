"""Sample whole judged queries of an input, as a file that any job can read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.estimates.estimate import find_pairs
from producer.inputs.source import Source
from producer.quality.qrels import Qrels
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import REFUSAL_COLUMN, Columns
from rankmill.errors import InputError
from rankmill.tables.files import read_files
from rankmill.tables.first_stage import SCORE, order_before
from rankmill.tables.ids import as_text
from rankmill.tables.schema import with_id_types

_BATCH_ROWS = 64 * 1024
_TITLE = "_title"  # the column of the sample


@dataclass(frozen=True)
class JudgedSample:
    """All candidates of some judged queries, in a Parquet file, and how a job reads it.

    Attributes:
        options: fields of JobOptions.
        judged: the judgments of these queries.
        n_found: judged queries of the input, of which these are a part.
    """

    options: dict[str, Any]
    judged: Qrels
    n_found: int


def judged_sample(options: JobOptions, judged: Qrels, n_wanted: int, folder: Path) -> JudgedSample:
    """Write the rows of `n_wanted` judged queries, spread evenly over the input, into `folder`.

    Args:
        options: the input and its columns.
        judged: the judgments of queries with a relevant document.
        n_wanted: queries to take; all if there are fewer.
        folder: an empty folder.

    Raises:
        InputError: the input has no ids, or none of the judged queries.
    """
    pairs = find_pairs(options, folder)
    source, columns = pairs.source, pairs.columns
    if columns.query_id is None or columns.doc_id is None:
        what = "query" if columns.query_id is None else "doc"
        raise InputError(
            f"{options.input_uri}: has no {what} ids, by which judgments name their pairs; name "
            f"their column with --{what}-id-col"
        )
    schema = with_id_types(source.schema, (columns.query_id, columns.doc_id))
    source = replace(source, schema=schema)
    found: dict[str, None] = {}
    for table in _rows(source, [columns.query_id], options):
        for query in pc.unique(as_text(table[columns.query_id])).to_pylist():
            if query in judged:
                found[query] = None
    if not found:
        raise InputError(
            f"{options.input_uri}: has none of the {len(judged):,} queries that have relevant "
            f"documents; does column '{columns.query_id}' hold the ids of the judgments?"
        )
    n_taken = min(n_wanted, len(found))
    queries = list(found)
    chosen = [queries[at * len(queries) // n_taken] for at in range(n_taken)]
    table = _of_queries(source, columns, chosen, options)
    good = table.filter(pc.is_null(table[REFUSAL_COLUMN])).drop_columns([REFUSAL_COLUMN])
    if columns.title_chars is not None:
        good = _with_titles_apart(good, columns.document, columns.title_chars)
        columns = columns.model_copy(update={"title": _TITLE})
    path = folder / "sample.parquet"
    pq.write_table(good, path)
    return JudgedSample(
        options=_as_pairs(columns, path),
        judged={query: judged[query] for query in chosen},
        n_found=len(found),
    )


def _rows(source: Source, names: list[str], options: JobOptions) -> Iterator[pa.Table]:
    return read_files(source.files, source.schema, names, 0, _BATCH_ROWS, options.damaged)


def _of_queries(
    source: Source, columns: Columns, chosen: list[str], options: JobOptions
) -> pa.Table:
    """Return the rows of the chosen queries, one query after the other."""
    wanted = pa.array(chosen, pa.large_string())
    names = [str(columns.query_id), str(columns.doc_id), *columns.texts]
    if order_before(source.schema) == "score":
        names.append(SCORE)
    tables, places = [], []
    for table in _rows(source, list(dict.fromkeys(names)), options):
        place = pc.index_in(as_text(table[columns.query_id]), value_set=wanted)
        is_chosen = pc.is_valid(place)
        tables.append(table.filter(is_chosen))
        places.append(place.filter(is_chosen).to_numpy())
    order = np.argsort(np.concatenate(places), kind="stable")
    return pa.concat_tables(tables).take(order)


def _with_titles_apart(table: pa.Table, document: str, title_chars: str) -> pa.Table:
    """Return the table with a column of titles, which a job puts before the texts again."""
    titles, texts = [], []
    for text, n_chars in zip(
        table[document].to_pylist(), table[title_chars].to_pylist(), strict=True
    ):
        titles.append(text[:n_chars])
        texts.append(text[n_chars:].removeprefix(" ") if n_chars else text)
    table = table.drop_columns([title_chars]).append_column(_TITLE, pa.array(titles, pa.string()))
    place = table.column_names.index(document)
    return table.set_column(place, table.schema.field(place), pa.array(texts, pa.string()))


def _as_pairs(columns: Columns, path: Path) -> dict[str, Any]:
    """Return the options of a job over the sample."""
    return {
        "input_uri": str(path),
        "input_version": None,
        "layout": "pairs",
        **dict.fromkeys(("queries", "corpus", "queries_version", "corpus_version")),
        "query_col": columns.query,
        "document_col": columns.document,
        "title_col": columns.title or "none",
        "prompt_col": columns.prompt,
        "columns": None,
        "query_id_col": columns.query_id,
        "doc_id_col": columns.doc_id,
        "keep_cols": (columns.query_id, columns.doc_id),
        "cluster": False,
        "duplicates": "keep",
        "damaged": "fail",
        "max_reject_rate": 1.0,
    }
