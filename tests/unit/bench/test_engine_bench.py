"""The benchmark of the engine measures what it says: same pairs, best batches, the right peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.engine.comparison import Comparison, Result, Workload, compare, spread
from bench.engine.peak import products
from bench.engine.peers import ExportedPeer, TorchPeer
from bench.engine.report import table
from bench.engine.shapes import SHAPES, shape_of, useful_flops
from bench.engine.sides import cheapest
from bench.workload import Mix, build_pairs, read_corpus
from rankmill.settings import CHECKOUT
from worker.engine.scorer import Scorer

DEMO = CHECKOUT / "models" / "demo-reranker"


@pytest.fixture(scope="module")
def padded() -> ExportedPeer:
    """Return the demo model behind the loop that feeds exported models."""
    model = AutoModelForSequenceClassification.from_pretrained(DEMO, dtype=torch.float32).eval()

    def infer(features: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            tensors = {name: torch.from_numpy(values) for name, values in features.items()}
            logits: np.ndarray = model(**tensors).logits.numpy()
            return logits

    return ExportedPeer("padded", AutoTokenizer.from_pretrained(DEMO), infer)


def test_an_exported_model_is_fed_as_cross_encoder_feeds_one(padded: ExportedPeer) -> None:
    pairs = build_pairs(read_corpus(), "long", 12)
    expected = TorchPeer(DEMO, "cpu", "fp32").predict(pairs, 4)
    np.testing.assert_allclose(padded.predict(pairs, 5), expected, atol=1e-4)


def test_a_comparison_has_the_difference_of_each_side_and_a_share_of_the_peak(
    padded: ExportedPeer,
) -> None:
    pairs = build_pairs(read_corpus(), "plain", 40)
    workload = Workload.fitting("plain", pairs, TorchPeer(DEMO, "cpu", "fp32"), 0)
    row = compare(
        shape_of(DEMO),
        Scorer.load(DEMO, precision="fp32"),
        [padded],
        workload,
        model="demo",
        precision="fp32",
        batches=[2, 4],
        seconds=0,
    )
    assert (row.n_pairs, row.peers[0].batch in (2, 4)) == (40, True)
    assert max(row.engine.max_difference, row.peers[0].max_difference) < 1e-4
    assert 0 < row.peak_share < 1
    wrong = Workload("plain", workload.pairs, workload.exact + 1)
    assert abs(wrong.exact - padded.predict(wrong.pairs, 2)).max() > 0.9


def test_few_pairs_are_in_blocks_of_one_length_from_the_whole_distribution() -> None:
    pairs = [("", "x" * length) for length in reversed(range(1, 1001))]
    lengths = [len(document) for _, document in spread(pairs, 4)]
    blocks = [lengths[start : start + 8] for start in range(0, 32, 8)]
    assert [block[-1] - block[0] for block in blocks] == [7] * 4
    assert [block[0] for block in blocks] == [122, 372, 622, 872]
    assert spread(pairs, 125) == pairs


def test_batch_sizes_are_tried_until_two_are_no_better() -> None:
    costs, tried = {1: 4.0, 2: 1.0, 4: 2.0, 8: 1.5, 16: 0.5}, []

    def cost(batch: int) -> float:
        tried.append(batch)
        return costs[batch]

    assert cheapest([1, 2, 4, 8, 16], cost) == 2
    assert tried == [1, 2, 4, 8]
    assert cheapest([1, 2], cost) == 2
    assert cheapest([16, 8, 4], lambda batch: 1 / batch) == 16


def test_the_best_peer_is_the_fastest_one() -> None:
    engine = Result("rankmill", None, wall_s=1, core_s=2, max_difference=0)
    peers = [
        Result("torch fp32", 4, wall_s=3, core_s=6, max_difference=0),
        Result("OpenVINO fp32", 2, wall_s=1.5, core_s=5, max_difference=0),
        Result("ONNX Runtime fp32", 1, wall_s=2, core_s=3, max_difference=0),
    ]
    row = Comparison("m", "plain", "fp32", 10, 75, engine, peers, 1e12, 0.5, 1)
    assert row.best_peer.name == "OpenVINO fp32"
    assert (row.times(row.best_peer), row.core_times_best) == (1.5, 1.5)
    assert "| 1.50 | 1.50 | OpenVINO fp32, 2 | 3.00 |" in table([row])


@pytest.mark.parametrize(("mix", "mean_tokens"), [("plain", 75), ("abstracts", 265), ("full", 510)])
def test_the_lengths_of_a_mix_are_as_named(mix: Mix, mean_tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    queries, documents = zip(*build_pairs(read_corpus(), mix, 300), strict=True)
    ids = tokenizer(list(queries), list(documents), truncation=True, max_length=512)["input_ids"]
    assert np.mean([len(each) for each in ids]) == pytest.approx(mean_tokens, rel=0.2)


def test_flops_follow_the_layers_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 384, '
        '"intermediate_size": 1536, "num_attention_heads": 12, "vocab_size": 30522, '
        '"max_position_embeddings": 512}'
    )
    lengths = np.array([75, 265])
    flops = useful_flops(SHAPES["minilm-l12"], lengths)
    assert useful_flops(shape_of(tmp_path), lengths) == flops
    assert flops > 1.9 * useful_flops(SHAPES["minilm"], lengths)


def test_the_peak_is_looked_for_in_every_library() -> None:
    first, *others = (product() for product in products("fp32", "cpu", 64))
    assert others or not hasattr(torch.ops.mkldnn, "_linear_pointwise")
    for other in others:
        torch.testing.assert_close(other, first)
    assert products("int8", "cpu", 64)[0]().dtype is torch.int32
