"""A padded model is tried when it is loaded: it must run and must not read padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.models import decoders, zoo
from tests.support.models.windows import many_pairs
from worker.engine.scorer import Scorer

SMALL_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}


@pytest.mark.parametrize(
    "build",
    [
        partial(
            zoo.bert_like,
            kind="convbert",
            sizes={"embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 1},
        ),
        partial(zoo.bert_like, kind="fnet"),
        partial(decoders.qwen3_st, kind="recurrent_gemma"),
    ],
    ids=["convolution", "no mask", "recurrent"],
)
def test_a_model_that_reads_its_padding_is_refused(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="reads the padding of its batches"):
        Scorer.load(build(tmp_path / "model"), precision="fp32")


def test_a_model_that_scores_a_pair_otherwise_alone_is_refused(tmp_path: Path) -> None:
    """Gemma of transformers attends to later tokens only in batches without padding."""
    sizes = {"num_labels": 1, "use_bidirectional_attention": True}
    folder = decoders.qwen3_classifier_st(tmp_path / "model", kind="gemma", sizes=sizes)
    with pytest.raises(ValueError, match=r'scores a pair by itself otherwise.*"is_causal": false'):
        Scorer.load(folder, precision="fp32")


def test_a_precision_that_a_model_does_not_support_is_refused(tmp_path: Path) -> None:
    folder = zoo.bert_like(tmp_path / "model", kind="deberta", sizes=SMALL_DEBERTA)
    line = r"DebertaForSequenceClassification cannot score pairs in bf16 \(RuntimeError: .*fp32$"
    with pytest.raises(ValueError, match=line):
        Scorer.load(folder, precision="bf16")
    assert Scorer.load(folder, precision="fp32").info.path == "padded"


@torch.inference_mode()
def test_learned_positions_count_from_the_first_token_of_a_text(tmp_path: Path) -> None:
    """Positions do not shift with the padding on the left, as they do in CrossEncoder."""
    torch.manual_seed(0)
    folder = decoders.qwen3_st(tmp_path / "model", kind="gpt2")
    scorer = Scorer.load(folder, precision="fp32")
    window = many_pairs(12)
    encoded = scorer._encoder.encode(window)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for pair in encoded.pair_of_row:
        start = encoded.starts[pair]
        ids = torch.from_numpy(encoded.ids[start : start + encoded.lengths[pair]].astype(np.int64))
        logits = model(ids[None]).logits[0, -1]
        expected.append((logits[4] - logits[5]).item())
    (scores,) = scorer.score([window])
    assert len(set(encoded.lengths.tolist())) > 1 and np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores.logits, expected, rtol=0, atol=1e-5)
