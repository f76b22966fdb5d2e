"""Passages end at sentences, never inside a character, and leave nothing out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.support.models.vocabularies import modernbert_tokenizer, unigram, wordpiece
from worker.engine.passages import tokens as tokens_module
from worker.engine.passages.breaks import NO_BREAK, SENTENCE, WORD, find_breaks
from worker.engine.passages.cutting import first_and_last, passages
from worker.engine.passages.tokens import TokenStarts, count_tokens, cut_texts, find_tokens

TOKENIZERS = {"wordpiece": wordpiece, "unigram": unigram, "bytes": modernbert_tokenizer}
SENTENCE_OF_TEN = "a b c d e f g h i. "
# One character for people, several for Unicode.
CLUSTERS = [
    *("e\u0301", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪"),
    *("क\u094d\u0937\u093f", "❤\ufe0f", "\u1100\u1161\u11a8"),
]
WORDS = ["fast", "search", "Wörterbuch", "日本語の文章です。", "x" * 40, "1,234.5", "Hello!"]
WORDS += ["end.", "\n\n"]


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]().backend_tokenizer


def mixed_text(seed: int, n_words: int = 120) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice([*WORDS, *CLUSTERS]) * rng.choice([1, 1, 2]) for _ in range(n_words))


def tokens_of(tokenizer: Tokenizer, text: str) -> TokenStarts:
    [found] = find_tokens(tokenizer, [text], None)
    return found


def visible(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("overlap", [0, 5])
@pytest.mark.parametrize("size", [8, 20])
def test_passages_cover_the_document_and_never_cut_a_character(
    tokenizer: Tokenizer, size: int, overlap: int
) -> None:
    for seed in range(8):
        text = mixed_text(seed)
        kinds, _ = find_breaks(text)
        found = passages(text, tokens_of(tokenizer, text), size, overlap, 10_000)
        assert not found.is_cut
        assert found.starts == sorted(set(found.starts)) and found.stops[-1] >= len(text.rstrip())
        for start, stop in zip(found.starts, found.stops, strict=True):
            assert start < stop and (start == 0 or kinds[start] != NO_BREAK)
        for stop, start in zip(found.stops, found.starts[1:], strict=False):
            if not overlap:
                assert start >= stop
            assert not visible(text[stop:start])
            after = stop + len(text[stop:]) - len(text[stop:].lstrip())
            assert kinds[after] != NO_BREAK
        texts = [text[start:stop] for start, stop in zip(found.starts, found.stops, strict=True)]
        # A character may have more tokens than fit, and the first word one or two more.
        longest = max(count_tokens(tokenizer, [*CLUSTERS, *(2 * each for each in CLUSTERS)]))
        assert max(count_tokens(tokenizer, texts)) <= max(size, longest) + 4


def test_a_passage_ends_where_a_sentence_ends_near() -> None:
    tokenizer = wordpiece().backend_tokenizer
    text = SENTENCE_OF_TEN * 9
    found = passages(text, tokens_of(tokenizer, text), 24, 0, 100)
    texts = [text[start:stop] for start, stop in zip(found.starts, found.stops, strict=True)]
    assert texts == [(2 * SENTENCE_OF_TEN).strip()] * 4 + [SENTENCE_OF_TEN.strip()]
    far = passages(text, tokens_of(tokenizer, text), 16, 0, 100)
    assert text[far.starts[0] : far.stops[0]].split()[-1] == "e", "none ends near 15 of 16 tokens"


def test_passages_share_what_was_asked_for() -> None:
    tokenizer = wordpiece().backend_tokenizer
    text = "a b c d e f g h " * 20
    found = passages(text, tokens_of(tokenizer, text), 20, 6, 100)
    for stop, start in zip(found.stops, found.starts[1:], strict=False):
        assert len(text[start:stop].split()) == 6


def test_the_rest_of_a_document_with_too_many_passages_is_left_out() -> None:
    tokenizer = wordpiece().backend_tokenizer
    text = "a b c d " * 50
    tokens = tokens_of(tokenizer, text)
    found = passages(text, tokens, 10, 0, 3)
    assert (len(found.starts), found.is_cut, found.stops[-1]) == (3, True, 59)
    assert not passages(text, tokens, 10, 0, 20).is_cut


def test_first_and_last_passages() -> None:
    tokenizer = wordpiece().backend_tokenizer
    text = SENTENCE_OF_TEN * 30
    tokens = tokens_of(tokenizer, text)
    found = first_and_last(text, tokens, 24, 0)
    assert found.is_cut and found.starts[0] == 0 and found.stops[1] == len(text.rstrip())
    assert text[found.stops[0] - 1] == "." and text[found.starts[1] - 2 :].startswith(". a b")
    texts = [text[start:stop] for start, stop in zip(found.starts, found.stops, strict=True)]
    assert max(count_tokens(tokenizer, texts)) <= 24
    short = SENTENCE_OF_TEN * 3
    found = first_and_last(short, tokens_of(tokenizer, short), 24, 0)
    assert not found.is_cut and not visible(short[found.stops[0] : found.starts[1]])


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_no_place_for_a_cut_is_inside_a_character(tokenizer: Tokenizer, cluster: str) -> None:
    kinds, _ = find_breaks(f"a{cluster}b")
    assert kinds[2 : 1 + len(cluster)].tolist() == [NO_BREAK] * (len(cluster) - 1)
    assert kinds[1] != NO_BREAK and kinds[1 + len(cluster)] != NO_BREAK
    text = f"{cluster} " * 40
    found = passages(text, tokens_of(tokenizer, text), 9, 0, 100)
    texts = [text[start:stop] for start, stop in zip(found.starts, found.stops, strict=True)]
    assert set(" ".join(texts).split(" ")) == {cluster}


def test_sentences_end_in_many_scripts() -> None:
    text = 'One. Two "three." Four! 日本。語\uff1f नमस्ते। दो U.S\n\nNext\nline 3.5 b'
    kinds, _ = find_breaks(text)
    begins = [text[at:].split()[0][:4] for at in np.flatnonzero(kinds[:-1] == SENTENCE)]
    assert begins == ["Two", "Four", "日本。語", "語\uff1f", "नमस्"[:4], "दो", "Next"]
    assert kinds[text.index("本")] == WORD, "Chinese has no spaces"
    assert kinds[text.index("line")] == WORD


def test_long_texts_are_tokenized_in_pieces_to_the_same_tokens(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = mixed_text(3, 600)
    whole = tokens_of(tokenizer, text)
    monkeypatch.setattr(tokens_module, "_PIECE_CHARS", 700)
    monkeypatch.setattr(tokens_module, "_BATCH_CHARS", 700)
    monkeypatch.setattr(tokens_module, "_LOOK_BACK_CHARS", 300)
    pieces = tokens_of(tokenizer, text)
    # White space between pieces may be other tokens; words are the same.
    words = [set(each.starts[each.kinds >= WORD].tolist()) for each in (whole, pieces)]
    assert pieces.is_whole and words[0] == words[1]
    some = next(find_tokens(tokenizer, [text], 500))
    assert not some.is_whole and 500 < len(some.starts) < len(whole.starts)
    assert (some.starts == pieces.starts[: len(some.starts)]).all()


def test_texts_are_cut_to_at_most_their_tokens(tokenizer: Tokenizer) -> None:
    texts = [mixed_text(seed, 30) for seed in range(20)] + ["short"]
    for most in (1, 7, 30):
        kept, is_cut = cut_texts(tokenizer, texts, most)
        assert is_cut[:-1].all() and (most == 1 or not is_cut[-1])
        for new, old, n_tokens in zip(kept, texts, count_tokens(tokenizer, kept), strict=True):
            kinds, next_visible = find_breaks(old)
            assert new and old.startswith(new) and kinds[next_visible[len(new)]] != NO_BREAK
            assert n_tokens <= most or most == 1 or len(new) <= 10, "a character may have more"
    assert cut_texts(tokenizer, texts, None)[0] is texts
