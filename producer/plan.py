"""An input's files, columns and shards, from Parquet footers alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import storage
from rankmill.errors import InputError
from rankmill.spec import RESULT_COLUMNS, Columns, InputFile, JobSpec

_QUERY_ID, _DOC_ID = "query_id", "doc_id"
_N_SHARDS = 32
_MIN_SHARD_PAIRS, _MAX_SHARD_PAIRS = 1024, 32768
_N_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True)
class Source:
    """What the footers tell of an input."""

    files: tuple[InputFile, ...]
    schema: pa.Schema

    @property
    def n_rows(self) -> int:
        return sum(file.n_rows for file in self.files)


def read_source(input_uri: str) -> Source:
    """Find the input's files and read their footers.

    Raises:
        InputError: no such file, not Parquet, truncated, or the files' columns differ.
    """
    found = storage.find_files(input_uri, ".parquet")
    with ThreadPoolExecutor(_N_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(_read_footer, found))
    schema = footers[0][1]
    for file, (_, other) in zip(found, footers, strict=True):
        _check_same_columns(found[0].uri, schema, file.uri, other)
    files = [
        InputFile(
            uri=file.uri, n_rows=n_rows, size_bytes=file.size_bytes, modified_ns=file.modified_ns
        )
        for file, (n_rows, _) in zip(found, footers, strict=True)
    ]
    return Source(tuple(files), schema)


def resolve_columns(spec: JobSpec, schema: pa.Schema) -> Columns:
    """Which column plays which part; ids are taken up where they are called as usual.

    Raises:
        InputError: a column is missing, of the wrong type, or would be written twice.
    """
    for column in (spec.query_col, spec.document_col):
        _check_text(column, schema)
    query_id = _id_column(spec.query_id_col, _QUERY_ID, schema)
    doc_id = _id_column(spec.doc_id_col, _DOC_ID, schema)
    texts = (spec.query_col, spec.document_col)
    if spec.keep_cols is not None:
        kept = list(spec.keep_cols)
    elif query_id and doc_id:
        kept = [name for name in schema.names if name not in texts]
    else:
        kept = list(schema.names)
    for column in kept:
        _field(column, schema)
    return Columns(
        query=spec.query_col,
        document=spec.document_col,
        query_id=query_id,
        doc_id=doc_id,
        kept=_names_in_parts(kept),
    )


def shard_bounds(n_rows: int, shard_pairs: int | None) -> tuple[int, ...]:
    """Cut rows into equal shards; an empty input has one empty shard, so that it has a part.

    Without a wish: about 32 shards, but none under 1,024 pairs (their overhead would show) or over
    32,768 (a lost worker would lose too much). It depends on nothing but the rows.
    """
    size = shard_pairs or min(max(-(-n_rows // _N_SHARDS), _MIN_SHARD_PAIRS), _MAX_SHARD_PAIRS)
    n_shards = max(1, -(-n_rows // size))
    return tuple(
        accumulate(
            (n_rows // n_shards + (i < n_rows % n_shards) for i in range(n_shards)), initial=0
        )
    )


def _read_footer(file: storage.FileStat) -> tuple[int, pa.Schema]:
    path = storage.local_path(file.uri)
    try:
        with pq.ParquetFile(path) as parquet:
            return parquet.metadata.num_rows, parquet.schema_arrow
    except PermissionError:
        raise InputError(f"{file.uri}: access is denied") from None
    except (OSError, pa.ArrowException) as error:
        with path.open("rb") as head:
            is_parquet = head.read(4) == b"PAR1"
        if is_parquet:
            raise InputError(f"{file.uri}: truncated or damaged Parquet, no footer") from error
        raise InputError(f"{file.uri}: not a Parquet file") from error


def _check_same_columns(first_uri: str, first: pa.Schema, uri: str, other: pa.Schema) -> None:
    if other.equals(first):
        return
    for field in first:
        index = other.get_field_index(field.name)
        if index < 0:
            raise InputError(f"{uri}: column '{field.name}' of {first_uri} is missing")
        if other.field(index).type != field.type:
            raise InputError(
                f"{uri}: column '{field.name}' is {other.field(index).type}, "
                f"but {field.type} in {first_uri}"
            )
    extra = sorted(set(other.names) - set(first.names))
    if extra:
        raise InputError(f"{uri}: column '{extra[0]}' is not in {first_uri}")


def _field(column: str, schema: pa.Schema) -> pa.Field:
    if schema.names.count(column) != 1:
        there = ", ".join(schema.names) or "none"
        what = "twice" if column in schema.names else "missing"
        raise InputError(f"column '{column}' is {what}; the columns there are: {there}")
    return schema.field(column)


def _check_text(column: str, schema: pa.Schema) -> None:
    kind = _field(column, schema).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = (
        pa.types.is_string(value)
        or pa.types.is_large_string(value)
        or pa.types.is_string_view(value)
        or pa.types.is_null(value)
    )
    if not is_text:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"column '{column}' is {kind}, not text; the columns there are: {columns}")


def _id_column(wanted: str | None, usual: str, schema: pa.Schema) -> str | None:
    if wanted is None:
        return usual if usual in schema.names else None
    _field(wanted, schema)
    return wanted


def _names_in_parts(kept: Sequence[str]) -> dict[str, str]:
    """Input column to output column; one called like a result gets `input_` before its name."""
    names = {column: f"input_{column}" if column in RESULT_COLUMNS else column for column in kept}
    written = [*names.values(), *RESULT_COLUMNS]
    twice = sorted({name for name in written if written.count(name) > 1})
    if len(names) < len(kept) or twice:
        name = twice[0] if twice else next(c for c in kept if list(kept).count(c) > 1)
        raise InputError(f"column '{name}' would be written twice; choose with --keep-cols")
    return names
