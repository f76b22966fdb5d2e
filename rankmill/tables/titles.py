"""A document as it is scored: its text, or its title and its text, joined as BEIR does it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.contract.plan import Columns


def scored_documents(table: pa.Table, columns: Columns) -> pa.ChunkedArray:
    """The documents of some pairs as the model gets them, and as they are hashed and compared."""
    documents = table[columns.document]
    return documents if columns.title is None else with_titles(table[columns.title], documents)


def with_titles(titles: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """`(title + " " + text).strip()` as large_string; a null is empty, and two are null.

    The formula is that of beir.retrieval (`models/sentence_bert.py`) and of mteb.
    """
    title, text = (pc.fill_null(each.cast(pa.large_string()), "") for each in (titles, texts))
    joined = _stripped(pc.binary_join_element_wise(title, text, pa.scalar(" ", pa.large_string())))
    is_missing = pc.and_(pc.is_null(texts), pc.equal(pc.binary_length(joined), 0))
    return pc.if_else(is_missing, pa.scalar(None, pa.large_string()), joined)


def _stripped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(texts)
    except pa.ArrowInvalid:  # one is not UTF-8, and will be rejected; the others must not differ
        stripped = [_stripped_bytes(text) for text in texts.cast(pa.large_binary()).to_pylist()]
        options = pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True)
        return pa.chunked_array([pa.array(stripped, pa.large_binary())]).cast(options=options)


def _stripped_bytes(text: bytes) -> bytes:
    return text.decode(errors="surrogateescape").strip().encode(errors="surrogateescape")
