"""Pairs joined from halves equal the tokenizer's own pair encoding, token for token."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from tests.support.models.random_texts import TOKENIZERS, pairs, rows, window_of
from tests.support.models.vocabularies import (
    CORPUS,
    wordpiece,
)
from worker.engine.batches.pairs import DistinctPairs
from worker.engine.encoding.encoder import Encoder, PairwiseEncoder, pair_encoder
from worker.engine.encoding.joining import JoinEncoder
from worker.engine.encoding.pair_template import longest_first
from worker.engine.values import PairWindow

tokenizer_of = cache(lambda name: TOKENIZERS[name]())

LENGTHS = (8, 9, 13, 32, 64, 512, 8192)


@cache
def encoder_of(name: str, max_length: int) -> Encoder:
    return pair_encoder(tokenizer_of(name), max_length=max_length)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_are_joined_not_encoded_as_pairs(name: str) -> None:
    assert isinstance(encoder_of(name, 64), JoinEncoder)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=25)
@given(pairs=pairs, max_length=st.sampled_from(LENGTHS))
def test_equals_the_tokenizers_pair_encoding(
    name: str, pairs: list[tuple[str, str]], max_length: int
) -> None:
    tokenizer, window = tokenizer_of(name), window_of(pairs)
    encoded = encoder_of(name, max_length).encode(window)
    expected = tokenizer(
        window.queries, window.documents, truncation="longest_first", max_length=max_length
    )
    uncut = tokenizer(window.queries, window.documents, truncation=False, verbose=False)
    assert rows(encoded) == expected["input_ids"]
    is_truncated = [
        len(a) > len(b) for a, b in zip(uncut["input_ids"], expected["input_ids"], strict=True)
    ]
    assert encoded.truncated[encoded.pair_of_row].tolist() == is_truncated
    if "token_type_ids" in expected:
        assert encoded.types is not None
        distinct = np.split(encoded.types, encoded.starts[1:])
        types = [distinct[pair].tolist() for pair in encoded.pair_of_row]
        assert types == expected["token_type_ids"]
    else:
        assert encoded.types is None


@given(n_query=st.integers(0, 40), n_document=st.integers(0, 40), max_length=st.integers(4, 45))
def test_longest_first_is_the_tokenizers(n_query: int, n_document: int, max_length: int) -> None:
    tokenizer = tokenizer_of("bert")
    ids = tokenizer(
        ["a " * n_query], ["a " * n_document], truncation="longest_first", max_length=max_length
    ).sequence_ids(0)
    kept = longest_first(np.array([n_query]), np.array([n_document]), max_length - 3)
    assert (kept[0].item(), kept[1].item()) == (ids.count(0), ids.count(1))


def test_truncation_from_the_left_is_kept() -> None:
    tokenizer = wordpiece()
    tokenizer.truncation_side = "left"
    window = window_of([("a fast search", " ".join(CORPUS)), (" ".join(CORPUS), "the end")])
    encoder = pair_encoder(tokenizer, max_length=24)
    expected = tokenizer(window.queries, window.documents, truncation=True, max_length=24)
    assert isinstance(encoder, JoinEncoder)
    assert rows(encoder.encode(window)) == expected["input_ids"]


def test_calls_of_the_tokenizer_do_not_truncate_or_pad_what_is_joined() -> None:
    tokenizer = wordpiece()
    window = window_of([("a fast search", " ".join(CORPUS)), ("a", "b")])
    encoder = pair_encoder(tokenizer, max_length=64)
    assert isinstance(encoder, JoinEncoder)
    before = rows(encoder.encode(window))
    tokenizer("a b c", truncation=True, max_length=3, padding="max_length")
    assert rows(encoder.encode(window)) == before


def test_a_tokenizer_whose_pairs_are_not_their_halves_encodes_them_itself() -> None:
    tokenizer = wordpiece()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $B [SEP] $A:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    window = window_of([("a fast search", "engine"), ("engine", " ".join(CORPUS))])
    encoder = pair_encoder(tokenizer, max_length=24)
    expected = tokenizer(window.queries, window.documents, truncation=True, max_length=24)
    assert isinstance(encoder, PairwiseEncoder)
    assert rows(encoder.encode(window)) == expected["input_ids"]


def test_a_max_length_without_room_for_text_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no room for text"):
        pair_encoder(wordpiece(), max_length=3)


@given(pairs=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd")), max_size=12))
def test_equal_pairs_are_kept_once(pairs: list[tuple[str, str]]) -> None:
    distinct = DistinctPairs.of(window_of(pairs))
    texts = [
        (distinct.queries[q], distinct.documents[d])
        for q, d in zip(distinct.query_of_pair, distinct.document_of_pair, strict=True)
    ]
    assert len(texts) == len(set(pairs))
    assert [texts[pair] for pair in distinct.pair_of_row] == pairs


def test_a_window_pairs_each_query_with_one_document() -> None:
    with pytest.raises(ValueError, match="2 with 1"):
        PairWindow(["a", "b"], ["c"])


def test_a_tokenizer_without_a_limit_does_not_truncate() -> None:
    window = window_of([("a fast search", " ".join(CORPUS * 3))])
    encoded = pair_encoder(wordpiece(), max_length=2**31 - 1).encode(window)
    assert encoded.truncated.tolist() == [False]
