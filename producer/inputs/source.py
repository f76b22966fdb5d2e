"""Read an input's files, schema and row groups from Parquet footers alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from producer.inputs.columns import key_columns
from producer.inputs.find import Found, find
from producer.tables.unify import unified
from producer.tables.width import check_width
from rankmill import storage
from rankmill.contract.job import (
    InputFile,
    JobOptions,
    Partition,
)
from rankmill.errors import InputError
from rankmill.tables.parquet import Footer, plain_schema, read_footer

_N_FOOTERS_AT_ONCE = 16


_PARTITION = re.compile(r"([^/=]+)=([^/]*)/")


_NULL = "__HIVE_DEFAULT_PARTITION__"


# A number that is written in one way only; `007` is a name.
_NUMBER_OR_NULL = re.compile(rf"0|-?[1-9][0-9]{{0,17}}|{_NULL}")


@dataclass(frozen=True)
class Source:
    """What the footers tell of an input.

    Attributes:
        group_rows: int64 (n_row_groups,), rows of each row group through all files.
        group_bytes: int64 (n_row_groups,), bytes of the columns asked for in each.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    group_rows: np.ndarray
    group_bytes: np.ndarray

    @classmethod
    def of(
        cls, files: tuple[InputFile, ...], schema: pa.Schema, footers: Sequence[Footer]
    ) -> Source:
        return cls(
            files,
            schema,
            np.concatenate([footer.group_rows for footer in footers]),
            np.concatenate([footer.group_bytes for footer in footers]),
        )

    @property
    def n_rows(self) -> int:
        return int(self.group_rows.sum())


def read_source(
    inputs: str | list[str] | Found,
    columns: Sequence[str] | None = None,
    in_all: Collection[str] = (),
) -> Source:
    """Find the input's files and read their footers, on S3 with a request for each file or two.

    Folders that a place does not name itself, being in it or matched by it, may give columns.

    Args:
        inputs: as a user names them, with commas between places, or found already; or a list of
            folders of our own.
        columns: those whose bytes are counted in `group_bytes`, or all.
        in_all: columns that no file may lack where another has them.

    Raises:
        InputError: no such file, not Parquet, truncated, or the files' columns differ in more
            than `unified` allows.
    """
    found: list[storage.FileStat] = []
    below: list[str] = []
    table = None
    if isinstance(inputs, list):
        for place in inputs:
            files = storage.find_files(place, (".parquet",))
            found += files
            below += storage.paths_below(place, files)
    else:
        named = find(inputs) if isinstance(inputs, str) else inputs
        found, below, table = list(named.files), list(named.below), named.table
    if table is not None and columns is not None:
        columns = table.stored_as(columns)
    with ThreadPoolExecutor(_N_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(lambda file: read_footer(file, columns), found))
    if not isinstance(inputs, list):
        for file, footer in zip(found, footers, strict=True):
            check_width(file.uri, footer.schema)
    if table is not None:
        return Source.of(*table.inputs(found, footers), footers)
    partitions = _partitions([file.uri for file in found], below)
    stored = [plain_schema(footer.schema) for footer in footers]
    schema = unified([file.uri for file in found], stored, in_all)
    if not isinstance(inputs, list):
        check_width(f"{found[0].uri} and {len(found) - 1} more", schema)
    input_files = tuple(
        _input_file(file, footer, partition, schema.names)
        for file, footer, partition in zip(found, footers, partitions, strict=True)
    )
    return Source.of(input_files, _with_given(schema, input_files), footers)


def read_pairs(options: JobOptions, found: Found | None = None) -> Source:
    """The source of pairs in Parquet; its texts and ids are in all files, or in none.

    Its bytes are those of the columns that a worker reads.

    Args:
        found: the input, where it was found already.

    Raises:
        InputError: as `read_source`.
    """
    keys = key_columns(options)
    found = found or find(options.input_uri, options.input_version)
    # Without a choice all but the texts are kept, or all.
    columns = None if options.keep_cols is None else (*keys, *options.keep_cols)
    return read_source(found, columns, in_all=keys)


def input_schema(files: Sequence[InputFile]) -> pa.Schema:
    """The columns of an input whose files `read_source` has found."""
    return _with_given(_stored_schema(tuple(file.stat for file in files)), files)


@lru_cache(maxsize=8)  # preparing asks several times, and there may be thousands of files
def _stored_schema(files: tuple[storage.FileStat, ...]) -> pa.Schema:
    with ThreadPoolExecutor(_N_FOOTERS_AT_ONCE) as pool:
        stored = [plain_schema(footer.schema) for footer in pool.map(read_footer, files)]
    return unified([file.uri for file in files], stored)


def _with_given(stored: pa.Schema, files: Sequence[InputFile]) -> pa.Schema:
    """The columns that are stored in files, and those that their paths give."""
    schema = stored
    for name in files[0].partition:
        if name not in stored.names:
            is_number = any(isinstance(file.partition[name], int) for file in files)
            schema = schema.append(pa.field(name, pa.int64() if is_number else pa.string()))
    return schema


def _input_file(
    file: storage.FileStat, footer: Footer, given: Partition, names: Sequence[str]
) -> InputFile:
    """
    Args:
        given: the columns of its path.
        names: the columns that this file or another stores.
    """
    there = set(footer.schema.names)
    lacks = [name for name in names if name not in there]
    for name in lacks:
        if name in given:
            raise InputError(
                f"{file.uri}: column '{name}' comes from its folder, but another file stores it; "
                "let all do the same"
            )
    values = {name: value for name, value in given.items() if name not in there}
    return InputFile(
        uri=file.uri,
        n_rows=footer.n_rows,
        size_bytes=file.size_bytes,
        state=file.state,
        partition=values | dict.fromkeys(lacks),
    )


def _partitions(uris: Sequence[str], paths: Sequence[str]) -> list[Partition]:
    """The columns that each path gives in Hive's way, `…/lang=de/…`; numbers where all are
    written as such: of others, as `007`, every sign counts.

    Raises:
        InputError: some paths give a column that others do not, or one twice.
    """
    given = [_given_by(uri, path) for uri, path in zip(uris, paths, strict=True)]
    for uri, values in zip(uris, given, strict=True):
        if values.keys() != given[0].keys():
            name = sorted(values.keys() ^ given[0].keys())[0]
            raise InputError(f"{uri}: {uris[0]} differs in having a folder {name}=… or not")
    numeric = {
        name for name in given[0] if all(_NUMBER_OR_NULL.fullmatch(each[name]) for each in given)
    }

    def value(name: str, text: str) -> int | str | None:
        if text == _NULL:
            return None
        return int(text) if name in numeric else text

    return [{name: value(name, text) for name, text in each.items()} for each in given]


def _given_by(uri: str, path: str) -> dict[str, str]:
    try:
        found = [
            (unquote(name, errors="strict"), unquote(value, errors="strict"))
            for name, value in _PARTITION.findall(path)
        ]
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: a folder's name is not UTF-8 after unquoting its %") from error
    given = dict(found)
    if len(given) < len(found):
        name = next(name for name in given if [n for n, _ in found].count(name) > 1)
        raise InputError(f"{uri}: two folders give the column '{name}'; rename one")
    return given
