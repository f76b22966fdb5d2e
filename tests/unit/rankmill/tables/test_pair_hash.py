"""Hashes of pairs: equal for equal texts however they are stored, else different."""

from __future__ import annotations

from hashlib import blake2b

import pyarrow as pa
import pytest

from rankmill.tables.pair_hash import as_integers, pair_hashes


def hashes_of(
    *pairs: tuple[str | None, str | None], kind: pa.DataType | None = None
) -> list[bytes]:
    queries, documents = zip(*pairs, strict=True)
    columns = [
        pa.chunked_array([pa.array(texts, kind or pa.string())]) for texts in (queries, documents)
    ]
    found: list[bytes] = pair_hashes(*columns).to_pylist()
    return found


def test_it_is_blake2b_of_length_query_and_document() -> None:
    [found] = hashes_of(("für", "eine Suche"))
    content = (4).to_bytes(8, "little") + "füreine Suche".encode()
    assert found == blake2b(content, digest_size=16).digest()


def test_a_text_that_moves_from_query_to_document_makes_another_pair() -> None:
    distinct = [
        *(("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("c", "ab")),
        # Texts that look like a length, and the same letter composed and not.
        *(("\x01\0\0\0\0\0\0\0a", "b"), ("a", "\x01\0\0\0\0\0\0\0b"), ("é", "x"), ("e\u0301", "x")),
        *(("a", "b "), ("a ", "b"), ("a", "B"), ("a", "b\0"), ("a", "b")),
    ]
    assert len(set(hashes_of(*distinct))) == len(distinct)


def test_a_missing_text_counts_as_an_empty_one_and_shifts_nothing() -> None:
    pairs = [(None, "a"), ("", "a"), ("q", None), ("q", ""), (None, "a"), ("q", "a")]
    found = hashes_of(*pairs)
    assert found[0] == found[1] == found[4] and found[2] == found[3]
    assert len(set(found)) == 3
    assert found[5:] == hashes_of(("q", "a"))


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_the_column_s_type_does_not_matter(kind: pa.DataType) -> None:
    pairs = [("日本", "🦀"), ("日本", "b"), ("c", "b")]
    assert hashes_of(*pairs, kind=kind) == hashes_of(*pairs)


def test_chunks_and_slices_do_not_matter() -> None:
    queries = pa.chunked_array([["a"], ["a", "b"]])
    documents = pa.chunked_array([["x", "y"], ["z"]])
    found = pair_hashes(queries, documents)
    assert found.to_pylist() == hashes_of(("a", "x"), ("a", "y"), ("b", "z"))
    assert as_integers(found.slice(1)).tobytes() == b"".join(found.to_pylist()[1:])
    assert as_integers(found.slice(3)).shape == (0, 2)
