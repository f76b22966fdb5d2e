"""Join a document's title and text as BEIR does, for scoring and hashing."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.contract.plan import Columns


def scored_documents(table: pa.Table, columns: Columns) -> pa.ChunkedArray:
    """Return the documents as the model gets them: the text, or the title and the text."""
    documents = table[columns.document]
    return documents if columns.title is None else with_titles(table[columns.title], documents)


def title_lengths(table: pa.Table, columns: Columns) -> list[int] | None:
    """Return the characters of the title that each scored document begins with.

    It is 0 without a title; None if no document has one.
    """
    if columns.title_chars is not None:
        lengths: list[int] = table[columns.title_chars].to_pylist()
        return lengths
    return None if columns.title is None else lengths_of_titles(table[columns.title]).to_pylist()


def lengths_of_titles(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the characters of titles as `with_titles` puts them before texts, int32."""
    titles = pc.fill_null(titles.cast(pa.large_string()), "")
    try:
        return pc.utf8_length(pc.utf8_trim_whitespace(titles)).cast(pa.int32())
    except pa.ArrowInvalid:  # one is not UTF-8 and will be rejected
        values = titles.cast(pa.large_binary()).to_pylist()
        lengths = [len(value.decode(errors="surrogateescape").strip()) for value in values]
        return pa.chunked_array([pa.array(lengths, pa.int32())])


def with_titles(titles: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `(title + " " + text).strip()` as large_string.

    One null counts as empty; two make a null.

    The formula is that of beir.retrieval (`models/sentence_bert.py`) and of mteb.
    """
    title, text = (pc.fill_null(each.cast(pa.large_string()), "") for each in (titles, texts))
    joined = pc.binary_join_element_wise(title, text, pa.scalar(" ", pa.large_string()))
    try:
        joined = pc.utf8_trim_whitespace(joined)
    except pa.ArrowInvalid:  # one is not UTF-8 and will be rejected; the others must not differ
        stripped = [
            text.decode(errors="surrogateescape").strip().encode(errors="surrogateescape")
            for text in joined.cast(pa.large_binary()).to_pylist()
        ]
        options = pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True)
        joined = pa.chunked_array([pa.array(stripped, pa.large_binary())]).cast(options=options)
    is_missing = pc.and_(pc.is_null(texts), pc.equal(pc.binary_length(joined), 0))
    return pc.if_else(is_missing, pa.scalar(None, pa.large_string()), joined)
