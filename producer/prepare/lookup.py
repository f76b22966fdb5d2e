"""Ids looked up in texts by a hash join: the run's ids are held, the texts only pass by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from producer.prepare.order import ROW_NUMBER, TABLE
from producer.prepare.texts import Texts
from producer.tables.database import Feed
from producer.tables.keys import as_key, key_type
from producer.tables.shuffle import Shuffle
from producer.tables.workspace import Workspace
from rankmill.errors import InputError

_SCHEMA = pa.schema([("text", pa.large_binary()), ("is_there", pa.bool_())])


def texts_in_order(
    workspace: Workspace, texts: Texts, key: str, order: np.ndarray
) -> Iterator[pa.Table]:
    """For each row of the run that is loaded its text, as blocks of a Shuffle.

    Args:
        key: its column with the ids.
        order: int64 (n_rows,), the position of each row.

    Returns:
        Tables of `text` large_binary and `is_there` bool, null where the id is not in the texts.

    Raises:
        InputError: an id of the run has two texts that differ.
    """
    with Shuffle(workspace.folder / f"{key}-texts", _SCHEMA, len(order)) as shuffle:
        for rows, text in _found(workspace, texts, key, len(order)):
            shuffle.add(pa.table([text, pa.repeat(True, len(rows))], _SCHEMA), order[rows])
        yield from shuffle.blocks()


def _found(
    workspace: Workspace, texts: Texts, key: str, n_rows: int
) -> Iterator[tuple[np.ndarray, pa.ChunkedArray]]:
    """Rows of the run with their texts; again where a text comes again."""
    schema = pa.schema([("id", key_type(texts.id_type, texts.id_column)), _SCHEMA.field("text")])
    query = (
        f"select {ROW_NUMBER}, id, text, hash(text) as hash from feed join {TABLE} on id = {key}"
    )
    hashes = workspace.array(f"{key}-hashes", np.uint64, n_rows)  # 0: no text yet
    for table in workspace.database.tables(query, Feed(schema, _keyed(workspace, texts, schema))):
        rows, new = table[ROW_NUMBER].to_numpy(), table["hash"].to_numpy() | np.uint64(1)
        before = hashes[rows]
        hashes[rows] = new
        differs = ((before != 0) & (before != new)) | (hashes[rows] != new)
        if differs.any():
            raise _two_texts(texts, table["id"][int(differs.argmax())].as_py())
        yield rows, table["text"]


def _keyed(workspace: Workspace, texts: Texts, schema: pa.Schema) -> Iterator[pa.Table]:
    for table in workspace.watch(f"reading {texts.flag}", texts.tables()):
        yield pa.table(
            [as_key(table["id"], texts.id_column), table["text"].cast(pa.large_binary())], schema
        )


def _two_texts(texts: Texts, value: bytes | int) -> InputError:
    name = value.decode(errors="replace") if isinstance(value, bytes) else value
    return InputError(
        f"{texts.flag} {texts.rows.files[0].uri}: {texts.id_column} {name!r} is there more than "
        "once, with different texts"
    )
