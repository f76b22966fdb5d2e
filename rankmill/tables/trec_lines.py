"""Write ranked rows as the lines of a TREC run."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.tables.casts import Inexact
from rankmill.tables.ids import as_text, comparable

_TAG = "rankmill"


def trec_lines(table: pa.Table, names: list[str], numbers: tuple[str, str]) -> Iterator[str]:
    """Yield `query Q0 document rank score tag` for each row.

    Args:
        table: ranked rows.
        names: the columns of the query id and the document id.
        numbers: the columns of the rank and the score; scores are written exactly.

    Raises:
        InputError: an id has a blank or is not UTF-8, so that it does not fit into a line.
    """
    queries, documents = (words(table[name], name) for name in names)
    ranks, scores = (table[name].to_pylist() for name in numbers)
    n_digits = 17 if pa.types.is_float64(table[numbers[1]].type) else 9
    for query, document, rank, score in zip(queries, documents, ranks, scores, strict=True):
        yield f"{query} Q0 {document} {rank} {score:.{n_digits}g} {_TAG}\n"


def words(ids: pa.ChunkedArray, column: str) -> list[str]:
    """Return ids as words of a line.

    Raises:
        InputError: one has a blank, is null or is not UTF-8; `column` is theirs.
    """
    values = comparable(ids)
    if pa.types.is_large_binary(values.type):
        return [_word(value, column) for value in values.to_pylist()]
    try:
        texts = as_text(ids).cast(pa.large_binary())
    except Inexact as error:
        raise InputError(f"{column} {error} is not whole; write such ids as text") from error
    return [_word(value, column) for value in texts.to_pylist()]


def _word(value: bytes | None, column: str) -> str:
    word = None if value is None else value.decode(errors="replace")
    if word is None or word.split() != [word] or word.encode() != value:
        raise InputError(
            f"{column} {word!r} cannot be in a TREC run, where ids are UTF-8 without blanks; "
            "submit the job without --trec-run"
        )
    return word
