"""What the engine says of a sample is what it does in a job."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.contract.estimate import MeasureRequest
from rankmill.contract.job import JobOptions
from rankmill.contract.plan import Columns
from rankmill.errors import InputError, ModelUnavailable
from tests.support.models import checkpoints, decoders
from worker.engine import kernels
from worker.engine.passages.limits import TextLimits
from worker.engine.passages.passage_scorer import NO_ROOM, PassageScorer
from worker.engine.scorer import PairWindow, Scorer
from worker.estimate import LengthOrder, _timed, calibrate, measure

COLUMNS = Columns(query="query", document="document", query_id=None, doc_id=None, kept={})


def request(folder: Path | None, calibrate_s: float = 0, **options: object) -> MeasureRequest:
    return MeasureRequest(
        options=JobOptions(input_uri="in", **options),
        columns=COLUMNS,
        model_folder=None if folder is None else str(folder),
        calibrate_s=calibrate_s,
    )


def sample(n_rows: int = 60) -> pa.Table:
    """Two of a query's ten pairs are equal to others."""
    queries = [f"query {row // 10}" for row in range(n_rows)]
    documents = ["word " * (row % 10 % 8) + "end" for row in range(n_rows)]
    refusals = pa.nulls(n_rows, pa.string())
    return pa.table({"query": queries, "document": documents, "_refusal": refusals})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "packed": checkpoints.bert(root / "bert", num_labels=1),
        "padded": checkpoints.megatron_bert(root / "megatron-bert"),
        "prefix": checkpoints.qwen3(root / "qwen3", checkpoints.CHAT_TEMPLATE),
        "causal": decoders.language_model(
            root / "gemma2", "gemma2", template=checkpoints.CHAT_TEMPLATE
        ),
    }


@pytest.mark.parametrize("path", ["packed", "prefix", "padded", "causal"])
def test_tokens_and_path_are_those_of_the_scorer(path: str, folders: dict[str, Path]) -> None:
    max_length = 64 if path in ("prefix", "causal") else 9
    scorer = Scorer.load(folders[path], max_length=max_length)
    texts = sample()
    window = PairWindow(texts["query"].to_pylist(), texts["document"].to_pylist())
    scores = next(iter(scorer.score([window])))
    found = measure(request(folders[path], max_length=max_length), texts)
    assert (
        (found.path, found.path_reason) == (scorer.info.path, scorer.info.path_reason) != ("", "")
    )
    assert found.path == path
    assert (found.precision, found.max_length) == (scorer.info.precision, max_length)
    assert found.n_tokens == scores.n_tokens.tolist()
    assert found.truncated == scores.truncated.tolist()
    assert found.calibration is None
    assert any(found.truncated) and not all(found.truncated)


def test_rows_that_a_job_would_reject_are_named_and_not_measured(folders: dict[str, Path]) -> None:
    texts = sample(4).set_column(1, "document", pa.array(["a", None, " ", "b"]))
    for folder in (folders["packed"], None):
        found = measure(request(folder), texts)
        assert found.refused == {1: "document is null", 2: "document is empty"}
        assert len(found.n_tokens) == (2 if folder else 0)


def test_a_model_that_cannot_score_as_asked_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelUnavailable, match=r"fp8 needs a Hopper GPU"):
        measure(request(folders["packed"], precision="fp8"), sample())


def test_a_calibration_counts_what_passed_in_its_seconds(folders: dict[str, Path]) -> None:
    scorer = Scorer.load(folders["packed"])
    letters = [chr(ord("a") + n) for n in range(26)]
    pairs = PairWindow(letters, letters)
    lengths = next(iter(scorer.score([pairs]))).n_tokens
    (n_tokens,) = set(lengths.tolist())
    before, started = scorer.stats, time.perf_counter()
    found = calibrate(scorer, LengthOrder(np.cumsum(lengths), pairs), 0.3)
    took = time.perf_counter() - started
    assert found.n_tokens == n_tokens * found.n_pairs
    assert 0 < found.n_pairs < scorer.stats.n_pairs - before.n_pairs
    assert 0 < found.seconds < took
    assert _timed(scorer, [pairs] * 3).n_pairs == 2 * len(letters)  # the first warms up


def test_a_calibration_goes_with_the_measurement_where_it_is_asked_for(
    folders: dict[str, Path],
) -> None:
    found = measure(request(folders["packed"], 0.1), sample())
    assert found.calibration is not None
    assert found.calibration.tokens_per_s > 0


def test_a_shared_prefix_is_measured_in_computed_tokens(folders: dict[str, Path]) -> None:
    texts = sample()
    found = measure(request(folders["prefix"], 0.1, max_length=64), texts)
    assert found.n_shared and all(n > 0 for n in found.n_shared)
    assert all(n < whole for n, whole in zip(found.n_shared, found.n_tokens, strict=True))
    speed = found.calibration
    assert speed is not None and speed.n_computed is not None and speed.max_batch_tokens
    scorer = Scorer.load(folders["prefix"], max_length=64)
    window = PairWindow(texts["query"].to_pylist(), texts["document"].to_pylist())
    encoded = scorer.encoder.encode(window)
    # Pairs of a query follow each other, so that they share its prefix as in a job.
    assert speed.n_computed < speed.n_tokens
    order = LengthOrder.of([window], [encoded])
    assert order.pairs.queries == sorted(order.pairs.queries)
    assert measure(request(folders["packed"]), texts).n_shared == []


@pytest.mark.parametrize("has_bf16", [True, False])
def test_int8_is_offered_where_auto_is_fp32(
    has_bf16: bool, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels.precision, "has_fast_bf16", lambda: has_bf16)
    found = measure(request(folders["packed"], 0.1), sample())
    assert found.precision == ("bf16" if has_bf16 else "fp32")
    assert (found.faster is None) == has_bf16
    if found.faster:
        agreement = found.faster.agreement
        assert found.faster.times > 0
        assert (agreement.precision, agreement.n_pairs, agreement.n_queries) == ("int8", 60, 6)
        assert 0.5 < agreement.kendall_tau <= 1
        assert 0 < agreement.max_difference < 1
    chosen = measure(request(folders["packed"], 0.1, precision="fp32"), sample())
    assert chosen.faster is None
    assert measure(request(folders["padded"], 0.1), sample()).faster is None


def test_nothing_to_score_is_nothing_to_calibrate(folders: dict[str, Path]) -> None:
    assert measure(request(folders["packed"], 0.1), sample(0)).calibration is None


def ordered(lengths: list[int]) -> LengthOrder:
    texts = [str(at) for at in range(len(lengths))]
    return LengthOrder(np.cumsum(lengths), PairWindow(texts, texts))


def chosen(order: LengthOrder, number: int, n_tokens: int, max_batch_tokens: int) -> list[int]:
    return [int(text) for text in order.window(number, n_tokens, max_batch_tokens).queries]


def test_a_window_is_runs_of_neighbours_in_length_all_over_the_sample() -> None:
    order = ordered([10] * 100)
    assert chosen(order, 0, 200, 50) == [n + k for n in (0, 25, 50, 75) for k in range(5)]
    # 0.618 of the way from one run's place to the next
    assert chosen(order, 1, 200, 50)[:5] == [15, 16, 17, 18, 19]
    assert chosen(order, 3, 1, 50) == [85]  # 3 * 0.618 = 1.854
    assert {at for n in range(8) for at in chosen(order, n, 200, 50)} == set(range(100))


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60).map(sorted),
    number=st.integers(0, 1000),
    n_tokens=st.integers(1, 3000),
    max_batch_tokens=st.integers(1, 500),
)
def test_a_window_has_pairs_once_and_about_as_many_tokens_as_asked(
    lengths: list[int], number: int, n_tokens: int, max_batch_tokens: int
) -> None:
    order = ordered(lengths)
    n_tokens = min(n_tokens, order.n_tokens)
    window = chosen(order, number, n_tokens, max_batch_tokens)
    assert window and len(set(window)) == len(window)
    n_runs = max(1, n_tokens // max_batch_tokens)
    assert sum(lengths[at] for at in window) <= n_tokens + 2 * n_runs * max(lengths)


def test_a_request_and_its_sample_arrive_as_they_were_sent() -> None:
    sent = request(Path("/a\nb"), 2.5, top_k=3)
    texts = sample(5).set_column(0, "query", pa.array(["\n", "", None, "é", "{}"], pa.string()))
    received, table = MeasureRequest.read(sent.with_sample(texts))
    assert received == sent
    assert table.equals(texts)
    assert np.array_equal(table["_refusal"].to_pylist(), [None] * 5)


def test_passages_and_their_tokens_are_those_of_the_scorer(folders: dict[str, Path]) -> None:
    texts = sample().set_column(0, "query", pa.array(["q"] * 59 + ["query " * 30]))
    options = {"long_docs": "max-passage", "passage_tokens": 8, "max_length": 20}
    found = measure(request(folders["packed"], **options), texts)
    scorer = PassageScorer(
        Scorer.load(folders["packed"], max_length=20), TextLimits("max-passage", passage_tokens=8)
    )
    [scores] = scorer.score([PairWindow(*(texts[at].to_pylist() for at in range(2)))])
    assert scores.passages is not None and scores.passages.n_passages.max() > 1
    assert found.refused == scores.refused == {59: NO_ROOM}
    assert found.n_tokens == scores.n_tokens[:59].tolist()
    assert found.n_passages == scores.passages.n_passages[:59].tolist()
    assert found.truncated == scores.truncated[:59].tolist()
    cut = measure(request(folders["packed"], max_document_tokens=3), texts)
    assert max(cut.n_tokens[:59]) == 7 and not cut.n_passages and any(cut.truncated)
    refused = request(folders["packed"], long_docs="max-passage", passage_tokens=9, max_length=9)
    with pytest.raises(InputError, match=r"--passage-tokens 9: a pair has at most 9 tokens"):
        measure(refused, texts)
