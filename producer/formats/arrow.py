"""Read Arrow's IPC files and streams as rows, as Hugging Face's `save_to_disk` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from producer.formats.rows import Rows, with_status
from producer.tables.unify import unified
from producer.tables.width import check_width
from rankmill import storage
from rankmill.contract.plan import InputFile
from rankmill.errors import InputError, StorageUnavailable, is_memory_shortage, unexpected
from rankmill.storage import FileStat
from rankmill.tables.casts import Inexact, exact_cast
from rankmill.tables.files import inexact
from rankmill.tables.schema import plain_schema

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
_END_OF_STREAM = STREAM_MAGIC + b"\0\0\0\0"
_BATCH_ROWS = 4096


def arrow_rows(files: tuple[InputFile, ...]) -> Rows:
    """Return the rows of Arrow files, with the types that suit all of them.

    Raises:
        InputError: a file is damaged or not Arrow's, or no type suits two files.
    """
    schemas = [_schema(file) for file in files]
    schema = unified([file.uri for file in files], schemas)

    def tables(names: Sequence[str]) -> Iterator[pa.Table]:
        wanted = pa.schema([schema.field(name) for name in names])
        for file, own in zip(files, schemas, strict=True):
            row = 0
            for batch in _batches(file.stat):
                table = pa.Table.from_batches([batch])
                for start in range(0, table.num_rows, _BATCH_ROWS):
                    some = table.slice(start, _BATCH_ROWS)
                    columns = [_column(some, file.uri, row + start, own, field) for field in wanted]
                    numbers = np.arange(row + start, row + start + some.num_rows)
                    cast = pa.table(columns, wanted) if columns else some.select([])
                    yield with_status(cast, file, numbers)
                row += table.num_rows

    return Rows(files, schema, tables)


def _column(
    table: pa.Table, uri: str, first_row: int, own: pa.Schema, field: pa.Field
) -> pa.ChunkedArray:
    """Return a column in the type of all files; null where the file has none."""
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    kind = own.field(field.name).type
    column = table[field.name]
    if column.type != kind:  # an extension, or a view
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks])
        column = column.cast(kind)
    try:
        return exact_cast(column, field.type)
    except Inexact as error:
        raise inexact(uri, first_row + error.at, field, kind, error) from error


def _schema(file: InputFile) -> pa.Schema:
    """Return a file's columns; refuse a stream without its end, whose last rows would be lost."""
    with _reading(file.stat) as content:
        start = content.read(len(FILE_MAGIC))
        content.seek(max(0, file.size_bytes - len(_END_OF_STREAM)))
        if start != FILE_MAGIC and content.read() != _END_OF_STREAM:
            raise InputError(f"{file.uri}: an Arrow stream without its end mark: is it cut off?")
        content.seek(0)
        schema = plain_schema(_reader(content).schema)
    check_width(file.uri, schema)
    return schema


def _batches(file: FileStat) -> Iterator[pa.RecordBatch]:
    with _reading(file) as content:
        reader = _reader(content)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from reader


def _reader(content: pa.NativeFile) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchReader:
    is_file = content.read(len(FILE_MAGIC)) == FILE_MAGIC
    content.seek(0)
    return pa.ipc.open_file(content) if is_file else pa.ipc.open_stream(content)


@contextmanager
def _reading(file: FileStat) -> Iterator[pa.NativeFile]:
    with storage.open_file(file) as content:
        try:
            yield pa.PythonFile(content, "r")
        except (pa.ArrowInvalid, OSError) as error:
            if is_memory_shortage(error):
                raise unexpected(error) from error
            if isinstance(error, OSError) and error.errno:
                raise StorageUnavailable(f"cannot read {file.uri}: {error.strerror}") from error
            reason = str(error).partition("\n")[0]
            raise InputError(f"{file.uri}: truncated or damaged Arrow file: {reason}") from error
