"""Decoders whose config lets tokens attend both ways are packed, and equal CrossEncoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from tests.support.models import decoders
from tests.support.models.windows import many_pairs, mixed_window
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow, WindowScores

pytestmark = pytest.mark.slow


YARN = {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}


def two_way(folder: Path, kind: str, **more: object) -> Path:
    torch.manual_seed(0)
    sizes = {"num_labels": 1, "is_causal": False, "head_dim": 16} | more
    return decoders.qwen3_classifier_st(folder, kind=kind, sizes=sizes)


def score(scorer: Scorer, window: PairWindow) -> WindowScores:
    (scores,) = scorer.score([window])
    return scores


@pytest.mark.parametrize(
    ("kind", "more"), [("llama", YARN), ("qwen2", {}), ("qwen3", {}), ("gemma", {})]
)
def test_equals_cross_encoder_predict(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    folder = two_way(tmp_path / "model", kind, **more)
    scorer, window = Scorer.load(folder, precision="fp32"), mixed_window()
    assert (scorer.info.path, scorer.info.deterministic) == ("packed", True)
    peer = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    pairs = list(zip(window.queries, window.documents, strict=True))
    expected = peer.predict(pairs, activation_fn=torch.nn.Identity())
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(score(scorer, window).logits, expected, rtol=0, atol=1e-5)


def test_the_same_decoder_one_way_scores_otherwise(tmp_path: Path) -> None:
    folder = two_way(tmp_path / "model", "qwen3")
    both = score(Scorer.load(folder, precision="fp32"), many_pairs(20)).logits
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_causal": True}))
    one = score(Scorer.load(folder, precision="fp32"), many_pairs(20)).logits
    assert np.abs(both - one).max() > 0.01


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_bits_do_not_depend_on_the_batch(precision: Precision, tmp_path: Path) -> None:
    torch.set_num_threads(2)  # a fixture restores it
    folder, window = two_way(tmp_path / "model", "qwen3"), many_pairs(60)
    whole = score(Scorer.load(folder, precision=precision), window).logits.tolist()
    alone = score(Scorer.load(folder, precision=precision, max_batch_tokens=1), window)
    assert alone.logits.tolist() == whole
