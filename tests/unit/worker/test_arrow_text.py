"""Texts are the same strings whatever Arrow holds them in, and the same bytes where they lie."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest

from worker.arrow_text import Texts, text_bytes

WORDS = ["one", "", "zwölf", "日本語"]
COLUMNS = {
    "string": pa.chunked_array([WORDS]),
    "large_string": pa.chunked_array([WORDS], pa.large_string()),
    "binary": pa.chunked_array([[word.encode() for word in WORDS]]),
    "dictionary": pa.chunked_array([pa.array(WORDS).dictionary_encode()]),
    "pieces": pa.chunked_array([WORDS[:1], WORDS[1:]]),
    "slice": pa.chunked_array([["before", *WORDS, "after"]]).slice(1, 4),
}


@pytest.mark.parametrize("held", COLUMNS)
def test_a_column_is_a_sequence_of_its_strings(held: str) -> None:
    texts = Texts(COLUMNS[held])
    assert (list(texts), len(texts)) == (WORDS, 4)
    assert (texts[2], texts[-1], texts[1:3]) == (WORDS[2], WORDS[-1], WORDS[1:3])
    bounds, content = text_bytes(pa.array(texts, pa.large_string()))
    found = [content[start:stop].tobytes().decode() for start, stop in pairwise(bounds)]
    assert found == WORDS


def test_no_texts_have_no_bytes() -> None:
    bounds, content = text_bytes(pa.array(Texts(pa.chunked_array([], pa.string()))))
    assert (bounds.tolist(), content.tolist()) == ([0], [])
