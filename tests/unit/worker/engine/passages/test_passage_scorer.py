"""Documents scored in passages equal CrossEncoder's scores of these passages, in any window."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from tests.support.models.vocabularies import CORPUS
from worker.engine.device.runner import PairTooLargeError
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.passages import planning
from worker.engine.passages.limits import LongDocs, TextLimits
from worker.engine.passages.outcome import document_logit
from worker.engine.passages.passage_scorer import NO_ROOM, NOT_FINITE, PassageScorer
from worker.engine.passages.planning import PassagePlanner
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow, WindowScores

pytestmark = pytest.mark.slow

MODES: tuple[LongDocs, ...] = ("max-passage", "first-and-last", "mean-top3")
TEXT = " ".join(CORPUS)
DOCUMENTS = [TEXT, CORPUS[0], " ".join(reversed(CORPUS)), "Grüße! " * 90, "a"]
QUERIES = ["fast search engine", "Wörterbuch", "a library of data"]
WINDOW = PairWindow(
    [query for query in QUERIES for _ in DOCUMENTS], [*DOCUMENTS, *DOCUMENTS, *DOCUMENTS]
)
MAX_LENGTHS = {"bert": 48, "xlm-roberta": 48, "modernbert": 48, "qwen3-chat": 96}


@pytest.fixture(scope="module")
def scorers(checkpoints: dict[str, Path]) -> dict[str, Scorer]:
    return {
        name: Scorer.load(checkpoints[name], max_length=length, precision="fp32")
        for name, length in MAX_LENGTHS.items()
    }


def scored(scorer: PassageScorer, window: PairWindow, size: int = 100) -> WindowScores:
    """Return the scores of a window that is scored in windows of a size."""
    parts = [
        PairWindow(window.queries[at : at + size], window.documents[at : at + size])
        for at in range(0, len(window.queries), size)
    ]
    results = list(scorer.score(parts))
    assert len(results) == len(parts) and all(part.passages for part in results)
    passages = [part.passages for part in results if part.passages]
    return WindowScores(
        logits=np.concatenate([part.logits for part in results]),
        n_tokens=np.concatenate([part.n_tokens for part in results]),
        truncated=np.concatenate([part.truncated for part in results]),
        passages=type(passages[0])(
            *(
                np.concatenate([getattr(each, name) for each in passages])
                for name in ("n_passages", "starts", "stops")
            )
        ),
    )


@pytest.mark.parametrize("name", sorted(MAX_LENGTHS))
@pytest.mark.parametrize("mode", MODES)
def test_scores_equal_the_reference_over_the_passages(
    scorers: dict[str, Scorer], checkpoints: dict[str, Path], name: str, mode: LongDocs
) -> None:
    limits = TextLimits(mode, passage_stride=4)
    reference = CrossEncoder(str(checkpoints[name]), device="cpu", max_length=MAX_LENGTHS[name])
    scorer = scorers[name]
    planner = PassagePlanner(scorer.encoder, scorer.tokenizer, limits, MAX_LENGTHS[name])
    [scores] = PassageScorer(scorer, limits).score([WINDOW])
    assert scores.passages is not None and not scores.refused
    for row, (query, document) in enumerate(zip(WINDOW.queries, WINDOW.documents, strict=True)):
        [piece] = planner.pieces(PairWindow([query], [document]))
        texts = [document[a:b] for a, b in zip(piece.starts, piece.stops, strict=True)]
        assert texts == list(piece.passages.documents) and not piece.encoded.truncated.any()
        logits = reference.predict(
            [(query, text) for text in texts], activation_fn=torch.nn.Identity()
        )
        wanted = np.sort(logits)[-3:].mean() if mode == "mean-top3" else logits.max()
        assert abs(scores.logits[row] - wanted) <= 1e-5
        best = document[scores.passages.starts[row] : scores.passages.stops[row]]
        assert logits[texts.index(best)] >= logits.max() - 1e-5
        assert scores.passages.n_passages[row] == len(texts)
        is_all = mode != "first-and-last" or len(texts) == 1
        assert not (is_all and scores.truncated[row])
        if len(texts) == 1:
            assert (texts, scores.truncated[row]) == ([document], False)


@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_windows_or_chunks(
    scorers: dict[str, Scorer], mode: LongDocs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = PassageScorer(scorers["bert"], TextLimits(mode, passage_tokens=16))
    whole = scored(scorer, WINDOW)
    for size, chunk in ((1, 2**19), (4, 2**19), (100, 400)):
        monkeypatch.setattr(planning, "_CHUNK_CHARS", chunk)
        parts = scored(scorer, WINDOW, size)
        for name in ("logits", "n_tokens", "truncated"):
            assert getattr(parts, name).tobytes() == getattr(whole, name).tobytes()
        assert whole.passages and parts.passages
        for name in ("n_passages", "starts", "stops"):
            assert (getattr(parts.passages, name) == getattr(whole.passages, name)).all()
    assert (whole.passages and whole.passages.n_passages.max() > 2) or mode == "first-and-last"


def test_a_document_that_fits_has_the_bits_of_its_plain_score(scorers: dict[str, Scorer]) -> None:
    window = PairWindow(["fast search"] * 2, [CORPUS[0], "a  b "])
    [plain] = scorers["bert"].score([window])
    for mode in MODES:
        [scores] = PassageScorer(scorers["bert"], TextLimits(mode)).score([window])
        assert scores.logits.tobytes() == plain.logits.tobytes()
        assert scores.n_tokens.tolist() == plain.n_tokens.tolist()
        assert scores.passages and scores.passages.stops.tolist() == [len(CORPUS[0]), 5]


def test_tokens_and_rows_are_counted_once(scorers: dict[str, Scorer]) -> None:
    scorer = PassageScorer(scorers["bert"].with_settings(max_length=48), TextLimits("max-passage"))
    window = PairWindow(["q", "q", "q"], [TEXT, TEXT, "short"])
    [scores] = scorer.score([window])
    assert scores.logits[0] == scores.logits[1]
    assert (scorer.stats.n_pairs, scorer.stats.n_duplicates, scorer.stats.n_truncated) == (3, 1, 0)
    assert scorer.stats.n_tokens <= scores.n_tokens[1:].sum()
    [none] = scorer.score([PairWindow([], [])])
    assert len(none.logits) == 0 and none.passages is not None


def test_a_query_is_cut_only_by_its_budget_and_never_by_passages(
    scorers: dict[str, Scorer],
) -> None:
    long_query = "fast search engine " * 20
    window = PairWindow([long_query, long_query, "fast"], [TEXT, "a", TEXT])
    [scores] = PassageScorer(scorers["bert"], TextLimits("max-passage")).score([window])
    assert scores.refused == {0: NO_ROOM, 1: NO_ROOM} and np.isnan(scores.logits[:2]).all()
    limits = TextLimits("max-passage", max_query_tokens=6)
    [scores] = PassageScorer(scorers["bert"], limits).score([window])
    assert scores.truncated.tolist() == [True, True, False] and not scores.refused
    [cut] = PassageScorer(scorers["bert"], TextLimits(max_query_tokens=6)).score([window])
    expected = PairWindow(["fast search engine fast search engine"], ["a"])
    tokens = scorers["bert"].tokenizer(expected.queries[0], add_special_tokens=False)["input_ids"]
    if len(tokens) == 6:
        [same] = scorers["bert"].score([expected])
        assert cut.logits[1] == scores.logits[1] == same.logits[0]
    assert cut.passages is None and cut.truncated.tolist() == [True, True, True]


def test_a_document_is_cut_by_its_budget(scorers: dict[str, Scorer]) -> None:
    [plain] = PassageScorer(scorers["bert"], TextLimits(max_document_tokens=5)).score([WINDOW])
    [passages] = PassageScorer(
        scorers["bert"], TextLimits("max-passage", max_document_tokens=5)
    ).score([WINDOW])
    assert plain.logits.tobytes() == passages.logits.tobytes()
    assert plain.truncated.tolist() == [True, True, True, True, False] * 3
    assert plain.n_tokens.max() <= 5 + 3 + 20


def test_a_passage_that_is_not_finite_rejects_its_document(
    scorers: dict[str, Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = PassageScorer(scorers["bert"], TextLimits("max-passage"))
    runner: Any = scorers["bert"]._runner
    collect = runner.collect

    def broken(launched: Any) -> np.ndarray:
        found: np.ndarray = collect(launched)
        found[2] = np.nan
        return found

    monkeypatch.setattr(runner, "collect", broken)
    [scores] = scorer.score([PairWindow(["q", "q"], [TEXT, "short"])])
    assert scores.refused == {0: NOT_FINITE}
    assert np.isnan(scores.logits).tolist() == [True, False]


def test_a_passage_too_large_for_the_device_names_its_row(
    scorers: dict[str, Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = PassageScorer(scorers["bert"], TextLimits("max-passage"))
    window = PairWindow(["q"] * 4, ["short", "short", TEXT, "a"])
    [piece] = scorer._planner.pieces(window)
    passage = int(np.flatnonzero(piece.pair_of_passage == 1)[-1])

    def too_large(*_: object) -> None:
        raise PairTooLargeError(passage, 48)

    monkeypatch.setattr(scorers["bert"]._runner, "start", too_large)
    with pytest.raises(PairTooLargeError) as caught:
        list(scorer.score([window]))
    assert (caught.value.row, caught.value.n_tokens) == (2, 48)


def test_the_logit_of_a_document() -> None:
    logits = np.array([0.1, -3, 2.5, 1], np.float32)
    assert document_logit(logits, "max-passage") == document_logit(logits, "first-and-last") == 2.5
    assert document_logit(logits, "mean-top3") == np.float32((0.1 + 2.5 + 1) / 3)
    assert document_logit(logits[::-1], "mean-top3") == document_logit(logits, "mean-top3")
    assert document_logit(logits[:1], "mean-top3") == logits[0]
    for bad in (np.nan, np.inf, -np.inf):
        with_bad = np.append(logits, np.float32(bad))
        assert all(np.isnan(document_logit(with_bad, mode)) for mode in MODES)


def test_a_tokenizer_without_places_is_refused(scorers: dict[str, Scorer]) -> None:
    class Slow:
        is_fast = False

    slow: Any = Slow()
    with pytest.raises(UnusableFolder, match="--long-docs"):
        PassagePlanner(scorers["bert"].encoder, slow, TextLimits("max-passage"), 48)


def test_a_title_is_repeated_before_each_passage(scorers: dict[str, Scorer]) -> None:
    title, limits = "fast search", TextLimits("max-passage")
    documents = [f"{title} {TEXT}", f"{title} {TEXT}", f"{TEXT} {TEXT}", f"{title} short"]
    titles = [len(title), 0, len(TEXT), len(title)]
    window = PairWindow(["engine"] * 4, documents, title_chars=titles)
    scorer = PassageScorer(scorers["bert"], limits)
    [piece] = scorer._planner.pieces(window)
    bounds = piece.bounds.tolist()
    texts = [
        (document[start:stop], text)
        for document, first, last in zip(documents, bounds, bounds[1:], strict=False)
        for start, stop, text in zip(
            piece.starts[first:last],
            piece.stops[first:last],
            piece.passages.documents[first:last],
            strict=True,
        )
    ]
    titled, plain = texts[: bounds[1]], texts[bounds[1] :]
    assert titled[0][0] == titled[0][1] and len(titled) > 2
    assert all(text == f"{title} {passage}" for passage, text in titled[1:])
    assert all(text == passage for passage, text in plain), "no title, or too long a one"
    assert not piece.encoded.truncated.any()
    [scores] = scorer.score([window])
    [alone] = scorers["bert"].score([piece.passages])
    for row, (first, last) in enumerate(pairwise(bounds)):
        assert scores.logits[row] == alone.logits[first:last].max()
    assert scores.logits[0] != scores.logits[1]
