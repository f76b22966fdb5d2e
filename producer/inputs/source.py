"""Read the files, schema and row groups of a Parquet input from its footers alone."""

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
from producer.inputs.find import FoundInput, find
from producer.tables.unify import unified
from producer.tables.width import check_width
from rankmill import storage
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import InputFile, Partition
from rankmill.errors import InputError
from rankmill.tables.parquet import Footer, read_footer
from rankmill.tables.schema import plain_schema

_N_FOOTERS_AT_ONCE = 16
_PARTITION = re.compile(r"([^/=]+)=([^/]*)/")
_NULL = "__HIVE_DEFAULT_PARTITION__"
# A number that is written in one way only; `007` is text.
_NUMBER_OR_NULL = re.compile(rf"0|-?[1-9][0-9]{{0,17}}|{_NULL}")


@dataclass(frozen=True)
class Source:
    """An input as its footers describe it.

    Attributes:
        files: the files, in order.
        schema: the columns of all files.
        group_rows: int64 (n_row_groups,), the rows of each row group, through all files.
        group_bytes: int64 (n_row_groups,), the bytes of the wanted columns in each.
    """

    files: tuple[InputFile, ...]
    schema: pa.Schema
    group_rows: np.ndarray
    group_bytes: np.ndarray

    @classmethod
    def of(
        cls, files: tuple[InputFile, ...], schema: pa.Schema, footers: Sequence[Footer]
    ) -> Source:
        """Return the source of files with these footers."""
        return cls(
            files,
            schema,
            np.concatenate([footer.group_rows for footer in footers]),
            np.concatenate([footer.group_bytes for footer in footers]),
        )

    @property
    def n_rows(self) -> int:
        """The rows of all files."""
        return int(self.group_rows.sum())


def read_source(
    inputs: str | list[str] | FoundInput,
    columns: Sequence[str] | None = None,
    in_all: Collection[str] = (),
) -> Source:
    """Find an input's files and read their footers; on S3 that takes one or two requests a file.

    The folders below a place that the user named may give columns, such as `lang=de`.

    Args:
        inputs: the input as a user names it, with commas between places, or as `find` returned
            it; or a list of folders that this project has written.
        columns: the columns whose bytes `group_bytes` counts; None for all.
        in_all: columns that no file may lack where another has them.

    Raises:
        InputError: a file is missing, truncated or not Parquet, or the files' columns differ in
            more than `unified` allows.
    """
    is_own = isinstance(inputs, list)
    files: list[storage.FileStat] = []
    below: list[str] = []
    table = None
    if isinstance(inputs, list):
        for place in inputs:
            inside = storage.find_files(place, (".parquet",))
            files += inside
            below += storage.paths_below(place, inside)
    else:
        found = find(inputs) if isinstance(inputs, str) else inputs
        files, below, table = list(found.files), list(found.below), found.table
    if table is not None and columns is not None:
        columns = table.stored_as(columns)
    with ThreadPoolExecutor(_N_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(lambda file: read_footer(file, columns), files))
    if not is_own:
        for file, footer in zip(files, footers, strict=True):
            check_width(file.uri, footer.schema)
    if table is not None:
        return Source.of(*table.inputs(files, footers), footers)
    uris = [file.uri for file in files]
    partitions = _partitions(uris, below)
    schema = unified(uris, [plain_schema(footer.schema) for footer in footers], in_all)
    if not is_own:
        check_width(f"{uris[0]} and {len(uris) - 1} more", schema)
    input_files = tuple(
        _input_file(file, footer, partition, schema.names)
        for file, footer, partition in zip(files, footers, partitions, strict=True)
    )
    return Source.of(input_files, _with_given(schema, input_files), footers)


def read_pairs(options: JobOptions, found: FoundInput | None = None) -> Source:
    """Return the source of pairs in Parquet, with the bytes of the columns that a worker reads.

    Args:
        options: name the input and its columns; texts and ids are in all files, or in none.
        found: the input if it was found already.

    Raises:
        InputError: as `read_source`.
    """
    keys = key_columns(options)
    found = found or find(options.input_uri, options.input_version)
    # Without a choice all but the texts are kept, or all.
    columns = None if options.keep_cols is None else (*keys, *options.keep_cols)
    return read_source(found, columns, in_all=keys)


def input_schema(files: Sequence[InputFile]) -> pa.Schema:
    """Return the columns of an input whose files `read_source` has found."""
    return _with_given(_stored_schema(tuple(file.stat for file in files)), files)


@lru_cache(maxsize=8)  # preparing asks several times, and there may be thousands of files
def _stored_schema(files: tuple[storage.FileStat, ...]) -> pa.Schema:
    with ThreadPoolExecutor(_N_FOOTERS_AT_ONCE) as pool:
        stored = [plain_schema(footer.schema) for footer in pool.map(read_footer, files)]
    return unified([file.uri for file in files], stored)


def _with_given(stored: pa.Schema, files: Sequence[InputFile]) -> pa.Schema:
    """Return the columns that files store, followed by those that only their paths give."""
    schema = stored
    for name in files[0].partition:
        if name not in stored.names:
            is_number = any(isinstance(file.partition[name], int) for file in files)
            schema = schema.append(pa.field(name, pa.int64() if is_number else pa.string()))
    return schema


def _input_file(
    file: storage.FileStat, footer: Footer, given: Partition, names: Sequence[str]
) -> InputFile:
    """Return a file with the columns that it does not store.

    Args:
        file: the file.
        footer: its footer.
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
    """Return the columns that each path gives in Hive's way, `…/lang=de/…`.

    A column has numbers if all its values are written as numbers are, so `007` makes it text.

    Raises:
        InputError: a path gives a column that another does not, or gives it twice.
    """
    given: list[dict[str, str]] = []
    for uri, path in zip(uris, paths, strict=True):
        try:
            named = [
                (unquote(name, errors="strict"), unquote(value, errors="strict"))
                for name, value in _PARTITION.findall(path)
            ]
        except UnicodeDecodeError as error:
            raise InputError(
                f"{uri}: a folder's name is not UTF-8 after unquoting its %"
            ) from error
        names = [name for name, _ in named]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{uri}: two folders give the column '{twice}'; rename one")
        given.append(dict(named))
    for uri, values in zip(uris, given, strict=True):
        if values.keys() != given[0].keys():
            name = sorted(values.keys() ^ given[0].keys())[0]
            raise InputError(f"{uri}: {uris[0]} differs in having a folder {name}=… or not")
    numeric = {
        name
        for name in given[0]
        if all(_NUMBER_OR_NULL.fullmatch(values[name]) for values in given)
    }

    def value(name: str, text: str) -> int | str | None:
        if text == _NULL:
            return None
        return int(text) if name in numeric else text

    return [{name: value(name, text) for name, text in values.items()} for values in given]
