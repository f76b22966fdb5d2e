"""Read JSONL as typed rows: one type a column for all lines; strings stay strings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from producer.formats.json_objects import check_keys, check_objects
from producer.formats.lines import LINES_SCHEMA, first_lines, read_lines
from producer.formats.rows import Rows, with_status
from producer.tables.database import Database, Feed
from producer.tables.width import check_n_columns
from rankmill.contract.plan import REFUSAL_COLUMN, InputFile
from rankmill.errors import InputError

# Key to type, or to the structure of an object or a list, as DuckDB writes them in JSON.
_Structure = dict[str, Any]

_NUMBERS = {"UBIGINT", "BIGINT", "HUGEINT", "DOUBLE"}
_MAX_DEPTH = 50  # Arrow takes at most 64 from DuckDB
# Shorter integers are exact as floats.
_LONG_INTEGER = r"^-?\d{16,}$"


def json_rows(
    files: tuple[InputFile, ...],
    database: Database,
    texts: Mapping[str, str] | None = None,
    *,
    only_beginning: bool = False,
) -> Rows:
    """Return the rows of JSONL files, with the types that suit all their lines.

    Args:
        files: the files, in order.
        database: one in memory that runs no other query while rows are read.
        texts: query, document and title to their columns, where only strings are not refused.
        only_beginning: take the types from the first lines of the first file that has a key there.

    Raises:
        InputError: a line is not a JSON object or has a value that no column can hold, or no line
            has a key.
    """
    structure: _Structure = {}
    if only_beginning:
        first = (_infer(file, first_lines(file.stat), database) for file in files)
        structure = next(filter(None, first), {})
    else:
        for file in files:
            for lines in read_lines(file.stat):
                structure = _merged(structure, _infer(file, lines, database))
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
    parser = _Parser(stored, database, mixed)
    empty = pa.table([["{}"], [0]], LINES_SCHEMA)

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        for file in files:
            for lines in read_lines(file.stat):
                if lines.num_rows:
                    table = parser.parse(lines, file, names)
                    yield parser.refuse(with_status(table, file, lines["row"].to_numpy()), lines)

    return Rows(files, parser.parse(empty, files[0], list(stored)).schema, tables)


@dataclass(frozen=True)
class _Parser:
    """Parses lines with fixed types.

    Attributes:
        structure: the types of the columns.
        database: runs the queries.
        mixed_texts: query, document or title to its column, where not all values are strings.
    """

    structure: _Structure
    database: Database
    mixed_texts: Mapping[str, str]

    def parse(self, lines: pa.Table, file: InputFile, names: Sequence[str]) -> pa.Table:
        """Return the named columns of lines of a file."""
        import duckdb

        structure = {name: self.structure[name] for name in names}
        try:
            flat = self._transform(lines, structure)
            _check_exact(self._transform(lines, _written_floats(structure)))
            return flat.cast(pa.schema([(each.name, _plain(each.type)) for each in flat.schema]))
        except (ValueError, duckdb.Error) as error:  # Arrow's are ValueErrors too
            raise _somewhere_in(lines, file, error) from error

    def refuse(self, table: pa.Table, lines: pa.Table) -> pa.Table:
        """Refuse the rows whose query, document or title is not a string, but became text."""
        if not self.mixed_texts:
            return table
        cases = []
        for name, column in self.mixed_texts.items():
            key = column.replace("~", "~0").replace("/", "~1")  # of a JSON pointer (RFC 6901)
            kind = f"json_type(line::json, '/{_quoted(key)}')"
            cases.append(
                f"case when {kind} not in ('VARCHAR', 'NULL') then '{name} is not text' end"
            )
        query = f"select coalesce({', '.join(cases)}) as refusal from feed order by row"
        tables = self.database.tables(query, Feed(LINES_SCHEMA, [lines]))
        refusal = pa.concat_tables(tables)["refusal"].cast(pa.string())
        return table.set_column(table.column_names.index(REFUSAL_COLUMN), REFUSAL_COLUMN, refusal)

    def _transform(self, lines: pa.Table, structure: _Structure) -> pa.Table:
        if not structure:
            return pa.table({})
        kinds = _quoted(json.dumps(structure))
        query = f"select json_transform(line::json, '{kinds}') as o from feed order by row"
        feed = Feed(LINES_SCHEMA, [lines])
        objects = pa.concat_tables(self.database.tables(query, feed)).combine_chunks()
        return pa.Table.from_struct_array(objects["o"])


def _quoted(text: str) -> str:
    """Return a text as it is written inside SQL's single quotes."""
    return text.replace("'", "''")


def _infer(file: InputFile, lines: pa.Table, database: Database) -> _Structure:
    """Return the types that suit some lines; DuckDB's memory for it grows with the lines."""
    import duckdb  # heavy, and only where there is JSONL

    if not lines.num_rows:
        return {}
    query = "select json_group_structure(line::json) from feed"
    try:
        [(content,)] = database.rows(query, Feed(LINES_SCHEMA, [lines]))
        structure = json.loads(content)
        _check_columns(structure)
    except duckdb.ConversionException as error:
        check_objects(file, lines, database)
        raise _somewhere_in(lines, file, error) from error
    except (ValueError, duckdb.Error) as error:
        raise _somewhere_in(lines, file, error) from error
    check_keys(file, lines, database)
    if isinstance(structure, dict):
        check_n_columns(file.uri, _n_keys(structure))
        return structure
    check_objects(file, lines, database)
    return {}  # objects without a key


def _check_columns(kind: Any, depth: int = 0) -> None:
    """Check that DuckDB and Arrow have a type for a structure.

    Raises:
        ValueError: they have none.
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
    """Return the error for some lines: DuckDB and Arrow do not name the one."""
    first, last = lines["row"][0].as_py() + 1, lines["row"][-1].as_py() + 1
    reason = str(error).partition("\n")[0].rpartition("Error: ")[2]
    return InputError(f"{file.uri}: lines {first} to {last}: {reason}")


def _merged(one: Any, other: Any) -> Any:
    """Return the type or structure that suits the values of both, by DuckDB's rules.

    "JSON" is any value: objects without keys have it, and so have mixtures.
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
    """Return the structure with text for values of several types or of none.

    Objects whose keys differ in case alone become text, too: DuckDB's names ignore case.
    """
    if isinstance(kind, dict) and len(set(map(str.casefold, kind))) < len(kind):
        return "VARCHAR"
    if isinstance(kind, dict):
        return {name: _storable(value) for name, value in kind.items()}
    if isinstance(kind, list):
        return [_storable(value) for value in kind]
    return "VARCHAR" if kind in ("JSON", "NULL") else kind


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the usual type for one of DuckDB's: without large offsets, and signed."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_uint64(kind) or pa.types.is_decimal(kind):  # more than 64 bits is an error
        return pa.int64()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _plain(each.type)) for each in kind])
    return kind


def _written_floats(kind: Any) -> Any:
    """Return the part of a structure that becomes floats, with text in their place."""
    if isinstance(kind, dict):
        fields = {name: _written_floats(value) for name, value in kind.items()}
        return {name: value for name, value in fields.items() if value}
    if isinstance(kind, list):
        item = _written_floats(kind[0])
        return [item] if item else []
    return "VARCHAR" if kind == "DOUBLE" else ""


def _check_exact(written: pa.Table) -> None:
    """Check that integers among floats stay exact, so that two ids never become one.

    Args:
        written: the values as they are written, of columns that become floats.

    Raises:
        ValueError: no float equals an integer.
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
