"""JSONL as typed rows: types that hold for all its lines, which strings never turn into others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.lines import LINES_SCHEMA, first_lines, line_error, read_lines
from producer.formats.rows import with_status
from producer.tables.database import Database, Feed
from producer.tables.width import check_n_columns
from rankmill.contract.job import REFUSAL_COLUMN, InputFile
from rankmill.errors import InputError

# Key to its type, or the structure of an object or a list, as DuckDB writes them in JSON.
Structure = dict[str, Any]

_NUMBERS = {"UBIGINT", "BIGINT", "HUGEINT", "DOUBLE"}
_MAX_DEPTH = 50  # of 64 that Arrow takes from DuckDB
# All shorter integers are floats too.
_LONG_INTEGER = r"^-?\d{16,}$"


@dataclass(frozen=True)
class JsonRows:
    """
    Attributes:
        database: in memory; not one whose queries these rows are fed to.
        mixed_texts: query or document to its column, where some values are no strings.
    """

    files: tuple[InputFile, ...]
    structure: Structure
    database: Database
    mixed_texts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def schema(self) -> pa.Schema:
        empty = pa.table([["{}"], [0]], LINES_SCHEMA)
        return self._parse(empty, self.files[0], list(self.structure)).schema

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        for file in self.files:
            for lines in read_lines(file.stat):
                if lines.num_rows:
                    own = self._parse(lines, file, names)
                    table = with_status(own, file, lines["row"].to_numpy())
                    yield self._refuse(table, lines) if self.mixed_texts else table

    def _parse(self, lines: pa.Table, file: InputFile, names: Sequence[str]) -> pa.Table:
        import duckdb

        structure = {name: self.structure[name] for name in names}
        try:
            flat = self._transform(lines, structure)
            _check_exact(self._transform(lines, _written_floats(structure)))
            return flat.cast(pa.schema([(each.name, _plain(each.type)) for each in flat.schema]))
        except (ValueError, duckdb.Error) as error:  # Arrow's are ValueErrors too
            raise _somewhere_in(lines, file, error) from error

    def _refuse(self, table: pa.Table, lines: pa.Table) -> pa.Table:
        """Values of other types are text in such a column, which nobody wrote as one."""
        cases = ", ".join(
            f"case when json_type(line::json, {_pointer(column)}) not in ('VARCHAR', 'NULL') "
            f"then '{name} is not text' end"
            for name, column in self.mixed_texts.items()
        )
        query = f"select coalesce({cases}) as refusal from feed order by row"
        tables = self.database.tables(query, Feed(LINES_SCHEMA, [lines]))
        refusal = pa.concat_tables(tables)["refusal"].cast(pa.string())
        return table.set_column(table.column_names.index(REFUSAL_COLUMN), REFUSAL_COLUMN, refusal)

    def _transform(self, lines: pa.Table, structure: Structure) -> pa.Table:
        if not structure:
            return pa.table({})
        kinds = json.dumps(structure).replace("'", "''")
        query = f"select json_transform(line::json, '{kinds}') as o from feed order by row"
        feed = Feed(LINES_SCHEMA, [lines])
        objects = pa.concat_tables(self.database.tables(query, feed)).combine_chunks()
        return pa.Table.from_struct_array(objects["o"])


def read_json(
    files: tuple[InputFile, ...],
    database: Database,
    texts: Mapping[str, str] | None = None,
    *,
    only_beginning: bool = False,
) -> JsonRows:
    """JSONL files with the types that suit all their lines, or those of the first few.

    Args:
        texts: query and document to their columns, in which a value that is no string is refused.

    Raises:
        InputError: a line is not a JSON object or has what cannot be a column, or none has a key.
    """
    if only_beginning:
        found = (_infer(file, first_lines(file.stat), database) for file in files)
        structure = next(filter(None, found), {})
    else:
        structure = {}
        for file in files:
            for table in read_lines(file.stat):
                structure = _merged(structure, _infer(file, table, database))
                check_n_columns(file.uri, _n_keys(structure))
    if not structure:
        others = f" or of {len(files) - 1} more files" if len(files) > 1 else ""
        raise InputError(f"{files[0].uri}: no line of it{others} has a key, so there is no column")
    for one, other in pairwise(sorted(structure, key=str.casefold)):
        if one.casefold() == other.casefold():
            raise InputError(f"{files[0].uri}: '{one}' and '{other}' differ in case alone")
    stored = {name: _storable(kind) for name, kind in structure.items()}
    mixed = {
        name: column
        for name, column in (texts or {}).items()
        if stored.get(column) == "VARCHAR" != structure[column]
    }
    return JsonRows(files, stored, database, mixed)


def _infer(file: InputFile, lines: pa.Table, database: Database) -> Structure:
    """The types that suit some lines. DuckDB's memory for it grows with what it looks at."""
    import duckdb  # heavy, and only where there is JSONL

    if not lines.num_rows:
        return {}
    query = "select json_group_structure(line::json) from feed"
    try:
        [(found,)] = database.rows(query, Feed(LINES_SCHEMA, [lines]))
        structure = json.loads(found)
        _check_columns(structure)
    except duckdb.ConversionException as error:
        _check_objects(file, lines, database)
        raise _somewhere_in(lines, file, error) from error
    except (ValueError, duckdb.Error) as error:
        raise _somewhere_in(lines, file, error) from error
    if isinstance(structure, dict):
        check_n_columns(file.uri, _n_keys(structure))
        return structure
    _check_objects(file, lines, database)
    return {}  # objects without a key


def _check_columns(kind: Any, depth: int = 0) -> None:
    """
    Raises:
        ValueError: DuckDB or Arrow has no type for this.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    if isinstance(kind, dict):
        for key in kind:
            if not key or "\0" in key:
                raise ValueError(f"the key {json.dumps(key)} cannot name a column")
        kind = list(kind.values())
    for inner in kind if isinstance(kind, list) else ():
        _check_columns(inner, depth + 1)


def _n_keys(kind: Any) -> int:
    inner = kind.values() if isinstance(kind, dict) else kind if isinstance(kind, list) else ()
    return max(1, sum(map(_n_keys, inner)))


def _somewhere_in(lines: pa.Table, file: InputFile, error: Exception) -> InputError:
    """Which line it is, DuckDB and Arrow do not say."""
    first, last = lines["row"][0].as_py() + 1, lines["row"][-1].as_py() + 1
    reason = str(error).partition("\n")[0].rpartition("Error: ")[2]
    return InputError(f"{file.uri}: lines {first} to {last}: {reason}")


def _check_objects(file: InputFile, lines: pa.Table, database: Database) -> None:
    """
    Raises:
        InputError: a line is no JSON object.
    """
    query = (
        "select min(row) from feed where not json_valid(line)"
        " or case when json_valid(line) then json_type(line::json) <> 'OBJECT' end"
    )
    [(row,)] = database.rows(query, Feed(LINES_SCHEMA, [lines]))
    if row is not None:
        raise line_error(file.uri, row, "is not a JSON object; JSONL has one in each line")


def _merged(one: Any, other: Any) -> Any:
    """The type or structure that suits the values of both, by DuckDB's rules.

    "JSON" is any value: it may stand for an object without keys, but for a mixture as well.
    """
    if one == other or other == "NULL":
        return one
    if one == "NULL":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        names = one | other
        return {n: _merged(one.get(n, "NULL"), other.get(n, "NULL")) for n in names}
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    if isinstance(one, str) and isinstance(other, str) and {one, other} <= _NUMBERS:
        return "DOUBLE" if "DOUBLE" in (one, other) else "HUGEINT"
    return "JSON"


def _storable(kind: Any) -> Any:
    """What values of several types or of none become: text; DuckDB's names know no case."""
    if isinstance(kind, dict) and len(set(map(str.casefold, kind))) < len(kind):
        return "VARCHAR"
    if isinstance(kind, dict):
        return {name: _storable(value) for name, value in kind.items()}
    if isinstance(kind, list):
        return [_storable(value) for value in kind]
    return "VARCHAR" if kind in ("JSON", "NULL") else kind


def _pointer(name: str) -> str:
    """A key as SQL has a JSON pointer (RFC 6901)."""
    escaped = name.replace("~", "~0").replace("/", "~1").replace("'", "''")
    return f"'/{escaped}'"


def _plain(kind: pa.DataType) -> pa.DataType:
    """Types as one would write them: no large offsets, and what JSON counts is signed."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_uint64(kind) or pa.types.is_decimal(kind):  # beyond 64 bits: is an error
        return pa.int64()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _plain(each.type)) for each in kind])
    return kind


def _written_floats(kind: Any) -> Any:
    """The part of a structure that becomes floats, as the text that it was; empty without any."""
    if isinstance(kind, dict):
        found = {name: _written_floats(value) for name, value in kind.items()}
        return {name: value for name, value in found.items() if value}
    if isinstance(kind, list):
        found = _written_floats(kind[0])
        return [found] if found else []
    return "VARCHAR" if kind == "DOUBLE" else ""


def _check_exact(written: pa.Table) -> None:
    """Two ids must not become one, as integers beyond 64 bits and those beside fractions would.

    Raises:
        ValueError: an integer that no float is.
    """
    for name, column in zip(written.column_names, written.columns, strict=True):
        for texts in _leaves(column.combine_chunks()):
            for text in texts.filter(pc.match_substring_regex(texts, _LONG_INTEGER)).to_pylist():
                if Decimal(text) != float(text):
                    raise ValueError(
                        f"'{name}' has {text}, which as a float is {float(text):.0f}; "
                        "write such numbers as strings"
                    )


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    if array.type.num_fields == 0:
        yield array
        return
    for inner in array.flatten() if pa.types.is_struct(array.type) else [array.flatten()]:
        yield from _leaves(inner)
