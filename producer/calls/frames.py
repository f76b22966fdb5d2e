"""Tables of any library as Arrow, and results as tables of the same library.

A library's own code makes the conversion: the Arrow PyCapsule interface, or what it has instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rankmill.errors import InputError

_TAKEN = (
    "a pandas or Polars DataFrame, a DuckDB relation, a pyarrow Table, a Hugging Face Dataset, or "
    "another table with __arrow_c_stream__"
)


@dataclass(frozen=True)
class Frame:
    """A table as Arrow.

    Attributes:
        table: its rows.
        back: makes a table of the same library from a result. The second argument names the
            columns that the result adds.
    """

    table: pa.Table
    back: Callable[[pa.Table, Sequence[str]], Any]


def frame_of(data: Any) -> Frame:
    """Return a table as Arrow.

    Raises:
        InputError: it is not a table, or Arrow has no type for one of its columns.
    """
    libraries = {each.__module__.partition(".")[0] for each in type(data).__mro__}
    of_library = next((_KINDS[name] for name in _KINDS if name in libraries), _of_capsule)
    try:
        frame = of_library(data)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        if not hasattr(data, "__arrow_c_stream__"):
            shown = f"{type(data).__module__}.{type(data).__qualname__}"
            raise InputError(
                f"rerank takes {_TAKEN}, not {shown}; run and submit read files"
            ) from None
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(f"the table cannot be read as Arrow: {first_line}") from error
    return Frame(_without_views(frame.table), frame.back)


def _of_pyarrow(data: Any) -> Frame:
    if isinstance(data, pa.RecordBatchReader):
        return Frame(data.read_all(), lambda table, _: table.to_reader())
    if isinstance(data, pa.RecordBatch):
        return Frame(pa.Table.from_batches([data]), lambda table, _: _one_batch(table))
    return Frame(pa.table(data), lambda table, _: table)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [column.combine_chunks() for column in table.columns], schema=table.schema
    )


def _of_pandas(data: Any) -> Frame:
    """Take the columns and the named levels of the index; the result has a new index."""
    import pandas

    for name, kind in data.dtypes.items():
        if isinstance(kind, pandas.PeriodDtype | pandas.IntervalDtype):
            raise InputError(f"column '{name}' is {kind}, which Parquet cannot hold; leave it out")
    named = [name for name in data.index.names if name is not None]
    flat = data.reset_index(level=named) if named else data
    kinds = {str(name): kind for name, kind in flat.dtypes.items()}

    def back(table: pa.Table, added: Sequence[str]) -> Any:
        made = table.to_pandas()
        kept = {name: kinds[name] for name in made.columns if name in kinds and name not in added}
        return made.astype({name: kind for name, kind in kept.items() if made[name].dtype != kind})

    return Frame(pa.Table.from_pandas(flat, preserve_index=False), back)


def _of_polars(data: Any) -> Frame:
    import polars

    if isinstance(data, polars.LazyFrame):
        eager = data.collect()
        return Frame(eager.to_arrow(), lambda table, _: polars.DataFrame(table).lazy())
    return Frame(data.to_arrow(), lambda table, _: polars.DataFrame(table))


def _of_duckdb(data: Any) -> Frame:
    def back(reranked: pa.Table, _: Sequence[str]) -> Any:
        # DuckDB finds the local variable by its name, and the relation keeps its connection.
        return data.query("given", "SELECT * FROM reranked")

    return Frame(pa.table(data), back)


def _of_datasets(data: Any) -> Frame:
    import datasets

    # Its own row indices, as after a shuffle, are applied.
    table = data.with_format("arrow")[:].replace_schema_metadata(None)
    return Frame(table, lambda made, _: datasets.Dataset(made))


def _of_capsule(data: Any) -> Frame:
    made = getattr(type(data), "from_arrow", None)
    return Frame(pa.table(data), lambda table, _: table if made is None else made(table))


_KINDS: dict[str, Callable[[Any], Frame]] = {
    "pyarrow": _of_pyarrow,
    "pandas": _of_pandas,
    "polars": _of_polars,
    "duckdb": _of_duckdb,
    "_duckdb": _of_duckdb,
    "datasets": _of_datasets,
}


def _without_views(table: pa.Table) -> pa.Table:
    """Return the table with plain strings in the place of string views, which Parquet lacks."""
    fields = [field.with_type(_plain_type(field.type)) for field in table.schema]
    schema = pa.schema(fields)
    return table if schema.equals(table.schema) else table.cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_plain_type(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind
