"""Export a finished job's result to one file, whole or not at all, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Literal, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from producer.export import training
from producer.export.line_writer import (
    CODECS,
    json_lines,
    write_csv,
    write_lines,
    write_parquet,
)
from producer.export.result_rows import column_names, queries_with_texts, tables
from producer.export.training import Choice, Counts
from producer.quality.drift.ranked import Ranked, open_ranked
from producer.quality.rankings import job_with_ids
from rankmill import storage
from rankmill.errors import InputError, OutputTaken
from rankmill.output.output import Output
from rankmill.tables.trec_lines import trec_lines, words

Format = Literal["jsonl", "csv", "trec", "msmarco", "st-triplets", "st-scores"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "trec": (".trec", ".run", ".txt"),
    "msmarco": (".tsv", ".txt"),
    "st-triplets": (".parquet", ".jsonl"),
    "st-scores": (".parquet", ".jsonl"),
}


class Exported(BaseModel):
    """A file that was written.

    Attributes:
        n_rows: its rows.
        n_queries: of training data, the queries that were read.
        n_without: of training data, the queries that gave no row.
    """

    model_config = ConfigDict(frozen=True)

    file_uri: str
    n_rows: int
    n_queries: int | None = None
    n_without: int | None = None


def export(
    output: Output,
    to: Format,
    file_uri: str | None = None,
    choice: Choice | None = None,
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the result of a finished job to a file.

    Args:
        output: of the finished job.
        to: the format.
        file_uri: the file, on disk or on S3; by default OUTPUT with the format's suffix.
        choice: which pairs become training data.
        overwrite: replace a file that is there.

    Raises:
        InputError: the job is not finished, lacks ids or texts that the format needs, or the file
            has another suffix or lies in the output.
        OutputTaken: the file is there.
    """
    uri = storage.absolute(file_uri or output.uri + _SUFFIXES[to][0])
    _check_place(output, to, uri, overwrite=overwrite)
    ranked = open_ranked(output)
    counts, choice = Counts(), choice or Choice()
    if to in ("trec", "msmarco"):
        job_with_ids(output)
    if to.startswith("st-") and choice.qrels is not None:
        job_with_ids(output)

    def write(file: IO[bytes]) -> None:
        if to in ("jsonl", "csv"):
            rows = _counted(tables(ranked, column_names(ranked)), counts)
            if to == "csv":
                write_csv(file, uri, rows)
            else:
                write_lines(file, uri, json_lines(rows))
        elif to in ("trec", "msmarco"):
            write_lines(file, uri, _run_lines(ranked, to, counts))
        else:
            make = training.triplets if to == "st-triplets" else training.scores
            schema = training.TRIPLETS if to == "st-triplets" else training.SCORES
            rows = make(queries_with_texts(ranked), choice, counts)
            if _unpacked(uri).endswith(".parquet"):
                write_parquet(file, schema, rows)
            else:
                write_lines(file, uri, json_lines(rows))
            if not counts.n_rows:
                raise InputError(
                    f"{output.uri}: no query gives a row of --to {to}; lower --margin, raise --top "
                    "or look at --qrels"
                )

    storage.publish(uri, write)
    is_training = to.startswith("st-")
    return Exported(
        file_uri=uri,
        n_rows=counts.n_rows,
        n_queries=counts.n_queries if is_training else None,
        n_without=counts.n_without if is_training else None,
    )


def _check_place(output: Output, to: Format, uri: str, *, overwrite: bool) -> None:
    suffixes = _SUFFIXES[to]
    packed = "" if uri.endswith(".parquet") else ", perhaps with .gz, .zst or .bz2"
    if not _unpacked(uri).endswith(suffixes) or (uri != _unpacked(uri) and ".parquet." in uri):
        wanted = " or ".join(suffixes)
        raise InputError(f"{uri}: --to {to} writes {wanted}{packed}; name such a file")
    for folder in (output.uri, output.control_uri):
        if storage.lies_in(uri, folder):
            raise InputError(f"{uri} lies in the job's folder {folder}; name a file elsewhere")
    if storage.exists(uri) and not overwrite:
        raise OutputTaken(f"{uri} is there already; name another file, or give --overwrite")


def _unpacked(uri: str) -> str:
    name = uri.lower()
    suffix = next((suffix for suffix in CODECS if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _counted(rows: Iterator[pa.Table], counts: Counts) -> Iterator[pa.Table]:
    for table in rows:
        counts.n_rows += table.num_rows
        yield table


def _run_lines(ranked: Ranked, to: Format, counts: Counts) -> Iterator[str]:
    """Yield the lines of a run by the order of the result."""
    columns = ranked.job.plan.columns
    names = [columns.kept[str(name)] for name in (columns.query_id, columns.doc_id)]
    rank = ranked.order_column
    score = "logit" if rank == "rank" else "fused_score"
    for table in _counted(tables(ranked, [*names, rank, score]), counts):
        if to == "trec":
            yield from trec_lines(table, names, (rank, score))
            continue
        ids = [words(table[name], name) for name in names]
        for query, document, place in zip(*ids, table[rank].to_pylist(), strict=True):
            yield f"{query}\t{document}\t{place}\n"
