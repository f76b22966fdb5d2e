"""Texts tokenized word by word equal the tokenizers library's own, id for id."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tests.support.models.vocabularies import CORPUS, wordpiece
from worker.arrow_text import Texts
from worker.engine.encoding import words
from worker.engine.encoding.utf8 import Utf8
from worker.engine.encoding.words import WordTokenizer
from worker.engine.scorer import PairWindow, Scorer

# White space of all kinds, marks that join what is before them, and texts of special tokens.
PIECES = (
    *(" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b"),
    *("\x00", "\x07", "\ufffd", "\u0301", " \u0308", "é", "É", "ﬁ", "İ", "ß", "Σ", "中", "日本"),
    *(
        "한국",
        "क्",
        "🙂",
        "[MASK]",
        "[mask]",
        "[SEP]",
        " [UNK] ",
        "[",
        "]",
        "-",
        "'",
        "…",
        "x" * 120,
    ),
    *("a", "b", "the", "ing", "Search", *CORPUS[0].split()),
)


def random_texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [
        *CORPUS,
        "",
        " ",
        *("".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(n)),
    ]


def tokenizer_of(**options: bool) -> Tokenizer:
    backend: Tokenizer = wordpiece().backend_tokenizer
    backend.normalizer = normalizers.BertNormalizer(**options)
    return backend


def expected(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def by_words(tokenizer: WordTokenizer, texts: Utf8) -> list[list[int]]:
    ids, lengths = tokenizer.tokenize(texts)
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


def made(tokenizer: Tokenizer) -> WordTokenizer:
    found = WordTokenizer.of(tokenizer)
    assert found is not None
    return found


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("clean_text", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_equals_the_library_for_any_text(
    lowercase: bool, clean_text: bool, strip_accents: bool
) -> None:
    tokenizer = tokenizer_of(
        lowercase=lowercase, clean_text=clean_text, strip_accents=strip_accents
    )
    tokenizer.add_tokens([AddedToken("search", lstrip=True, rstrip=True), "ing"])
    tokenizer.add_tokens([AddedToken("b", single_word=True), AddedToken("the", normalized=False)])
    texts, by = random_texts(3000, seed=1), made(tokenizer)
    for _ in range(2):  # with words that are new, and with known ones
        assert by_words(by, Utf8.of(texts)) == expected(tokenizer, texts)


def test_a_table_of_many_words_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of()
    by = made(tokenizer)
    sizes = []
    for name, most in (("_MOST_WORDS", 50), ("_MOST_BYTES", 100)):
        monkeypatch.setattr(words, name, most)
        for seed in range(10):
            texts = random_texts(20, seed)
            assert by_words(by, Utf8.of(texts)) == expected(tokenizer, texts)
            sizes.append(by._sizes()[0])
    assert max(sizes) < 1000 and sizes != sorted(sizes)


def test_threads_share_a_table() -> None:
    tokenizer = tokenizer_of()
    by = made(tokenizer)
    parts = [random_texts(300, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda texts: by_words(by, Utf8.of(texts)), parts))
    assert found == [expected(tokenizer, texts) for texts in parts]


def test_a_word_that_is_refused_does_not_spoil_other_texts() -> None:
    tokenizer = tokenizer_of()
    by = made(tokenizer)

    class Refusing:
        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Any]:
            if "bad" in texts:
                raise ValueError("no")
            return list(tokenizer.encode_batch_fast(texts, **options))

    vars(by)["_tokenizer"] = Refusing()
    with pytest.raises(ValueError, match="no"):
        by.tokenize(Utf8.of([*CORPUS, "a bad text"]))
    assert by_words(by, Utf8.of(CORPUS)) == expected(tokenizer, CORPUS)


@pytest.mark.parametrize("added", ["two words", "tab\tbed", "中"])
def test_a_token_that_may_hold_white_space_is_refused(added: str) -> None:
    tokenizer = tokenizer_of()
    tokenizer.add_tokens([added])
    assert WordTokenizer.of(tokenizer) is None


def test_a_tokenizer_that_sees_more_than_a_word_is_refused() -> None:
    tokenizer = tokenizer_of()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert WordTokenizer.of(tokenizer) is None
    tokenizer = tokenizer_of()
    tokenizer.normalizer = normalizers.NFKC()
    assert WordTokenizer.of(tokenizer) is None
    tokenizer = tokenizer_of()
    tokenizer.model = models.BPE()
    assert WordTokenizer.of(tokenizer) is None


def test_texts_in_arrow_and_in_lists_are_the_same_bytes() -> None:
    texts = random_texts(200, seed=3)
    column = pa.chunked_array([pa.array(["before", *texts, "after"])]).slice(1, len(texts))
    held, listed = Utf8.of(Texts(column)), Utf8.of(texts)
    everything = np.arange(len(texts))
    assert held.take(everything).content.tolist() == listed.content.tolist()
    assert held.take(everything[::-1]).bounds[-1] == listed.bounds[-1]
    tokenizer = tokenizer_of()
    assert by_words(made(tokenizer), held) == expected(tokenizer, texts)


def test_equal_texts_are_found() -> None:
    rng = random.Random(5)
    texts = [rng.choice(["", "a", "b", "ab", "a" * 8, "a" * 9, "b" + "a" * 8]) for _ in range(500)]
    library = made(tokenizer_of()).library
    numbers, first = Utf8.of(texts).distinct(library)
    assert [texts[at] for at in first] == list(dict.fromkeys(texts))
    assert [texts[first[number]] for number in numbers] == texts
    assert all(len(found) == 0 for found in Utf8.of([]).distinct(library))


def test_no_string_is_made_of_texts_in_arrow(checkpoints: dict[str, Path]) -> None:
    class Held(Texts):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("strings were made")

    scorer = Scorer.load(checkpoints["bert"], precision="fp32")
    queries, documents = ["search", "a", "search"], CORPUS[:3]
    (wanted,) = scorer.score([PairWindow(queries, documents)])
    held = [Held(pa.chunked_array([texts])) for texts in (queries, documents)]
    (found,) = scorer.score([PairWindow(*held)])
    assert found.logits.tolist() == wanted.logits.tolist()
