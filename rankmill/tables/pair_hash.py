"""Hash a pair by its texts: 128 bits that are equal exactly if the texts are."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import repeat

import numpy as np
import pyarrow as pa

from rankmill.contract.plan import PASSAGE_COLUMNS

PAIR_HASH_COLUMN = "pair_hash"
_N_BYTES = 16
PAIR_HASH_TYPE = pa.binary(_N_BYTES)
# The columns of `scores/` in the control folder, one row for each pair that has a score.
SAVED_SCHEMA = pa.schema(
    [
        (PAIR_HASH_COLUMN, PAIR_HASH_TYPE),
        ("logit", pa.float32()),
        ("n_tokens", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)


def saved_schema(*, has_passages: bool) -> pa.Schema:
    """Return SAVED_SCHEMA, with the columns of the best passage where documents have passages."""
    passages = [pa.field(name, pa.int32()) for name in PASSAGE_COLUMNS]
    return pa.schema([*SAVED_SCHEMA, *passages]) if has_passages else SAVED_SCHEMA


def pair_hashes(
    queries: pa.ChunkedArray,
    documents: pa.ChunkedArray,
    prompts: pa.ChunkedArray | None = None,
    title_chars: Sequence[int] | None = None,
) -> pa.FixedSizeBinaryArray:
    """Return BLAKE2b of the query's length in 8 bytes, the query and the document, in UTF-8.

    Lengths mark the ends of texts, so that no other pair has the same bytes. A missing query or
    document counts as an empty one: neither is ever scored. A prompt comes before the query, with
    its own length; a missing one counts as empty. So does the number of characters of the title
    that a document begins with, in 8 bytes before the document, where it is not 0.
    """
    digests = []
    heads = _texts(queries)
    if prompts is not None:
        heads = [
            _sized(prompt or b"") + (query or b"")
            for prompt, query in zip(_texts(prompts), heads, strict=True)
        ]
    person = b"" if prompts is None else b"prompt"
    last_head, begun = b"", _begun(b"", person)
    titles = repeat(0) if title_chars is None else title_chars
    for head, document, n_title in zip(heads, _texts(documents), titles, strict=False):
        if (head or b"") != last_head:  # most rows have the query of the row before
            last_head = head or b""
            begun = _begun(last_head, person)
        if n_title:
            digest = _begun(last_head, person + b"+title")
            digest.update(n_title.to_bytes(8, "little"))
        else:
            digest = begun.copy()
        digest.update(document or b"")
        digests.append(digest.digest())
    content = pa.py_buffer(b"".join(digests))
    return pa.FixedSizeBinaryArray.from_buffers(PAIR_HASH_TYPE, len(digests), [None, content])


def as_integers(hashes: pa.Array) -> np.ndarray:
    """Return hashes without nulls as int64 (n, 2)."""
    content = np.frombuffer(hashes.buffers()[1], np.uint8)
    begin, size = hashes.offset * _N_BYTES, len(hashes) * _N_BYTES
    return content[begin : begin + size].view("<i8").reshape(-1, 2)


def _begun(head: bytes, person: bytes) -> blake2b:
    return blake2b(_sized(head), digest_size=_N_BYTES, person=person)


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def _texts(column: pa.ChunkedArray) -> list[bytes | None]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return texts
