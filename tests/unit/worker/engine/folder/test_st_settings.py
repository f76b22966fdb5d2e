"""The engine obeys the settings that CrossEncoder obeys, or refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.models.checkpoints import CHAT_TEMPLATE, bert, roberta, write_json
from tests.support.models.vocabularies import CORPUS
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.scorer import PairWindow, Scorer
from worker.shard.part import activate

pytestmark = pytest.mark.slow

IDENTITY = "torch.nn.modules.linear.Identity"
TASK = "sequence-classification"
TEXTS = [*CORPUS[:5], "", "a", "Grüße, naïve CAFÉ", " ".join(CORPUS[:3])]
PAIRS = [(query, text) for query in ("Fast search ENGINE", "") for text in TEXTS]


def settings(folder: Path, transformer: dict[str, Any] | None = None, **stated: Any) -> Path:
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    write_json(
        folder / "sentence_bert_config.json", {"transformer_task": TASK, **(transformer or {})}
    )
    write_json(
        folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", **stated}
    )
    return folder


TEXT_ONLY = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
MESSAGES = {
    "modality_config": {
        name: {"method": "forward", "method_output_name": "logits", "format": "flat"}
        for name in ("text", "message")
    },
    "module_output_name": "scores",
}
# The settings, further keys of config.json, and whether there is a chat template.
OBEYED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], bool]] = {
    "nothing": ({}, {}, {}, False),
    "max_seq_length": ({"max_seq_length": 24}, {}, {}, False),
    "max_seq_length over the tokenizer's": ({"max_seq_length": 110}, {}, {}, False),
    "model_max_length": ({"processor_kwargs": {"model_max_length": 20}}, {}, {}, False),
    "its older name": ({"tokenizer_args": {"model_max_length": 20}}, {}, {}, False),
    "text.max_length": ({"processing_kwargs": {"text": {"max_length": 24}}}, {}, {}, False),
    "common.max_length": (
        {"processing_kwargs": {"text": {"max_length": 24}, "common": {"max_length": 30}}},
        *({}, {}, False),
    ),
    "do_lower_case": ({"do_lower_case": True}, {}, {}, False),
    "activation": ({}, {"activation_fn": IDENTITY}, {}, False),
    "activation over the config's": (
        {},
        {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        {"sentence_transformers": {"activation_fn": IDENTITY}},
        False,
    ),
    "activation of the config": (
        *({}, {}),
        {
            "sentence_transformers": {"activation_fn": IDENTITY},
            "sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid",
        },
        False,
    ),
    "prompt": ({}, {"prompts": {"q": "query: "}, "default_prompt_name": "q"}, {}, False),
    "prompt without a name": ({}, {"prompts": {"q": "query: "}}, {}, False),
    "empty prompt": (MESSAGES, {"prompts": {"q": ""}, "default_prompt_name": "q"}, {}, True),
    "text with a template": (TEXT_ONLY, {}, {}, True),
    "no modality with a template": ({}, {}, {}, True),
    "messages": (MESSAGES, {"prompts": {"q": "Be brief."}, "default_prompt_name": "q"}, {}, True),
    "messages cut": (
        MESSAGES | {"processing_kwargs": {"chat_template": {"max_length": 120}}},
        *({}, {}, True),
    ),
}


def equals_cross_encoder(folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    scorer = Scorer.load(folder, precision="fp32")
    (scores,) = scorer.score([PairWindow([q for q, _ in PAIRS], [d for _, d in PAIRS])])
    peer = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = peer.predict(PAIRS)
    assert np.ptp(expected) > 0.005
    actual = activate(scores.logits, scorer.info.activation)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", OBEYED.values(), ids=list(OBEYED))
def test_a_setting_scores_as_in_cross_encoder(case: Any, tmp_path: Path) -> None:
    transformer, stated, config, has_template = case
    torch.manual_seed(0)
    folder = settings(roberta(tmp_path / "model"), transformer, **stated)
    add(folder, config, has_template=has_template)
    equals_cross_encoder(folder)


def add(folder: Path, config: dict[str, Any], *, has_template: bool) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if has_template:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


@pytest.mark.parametrize("left_out", ["modules.json", "config_sentence_transformers.json"])
def test_settings_count_only_where_cross_encoder_reads_them(left_out: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = settings(
        roberta(tmp_path / "model"),
        {"max_seq_length": 24, "do_lower_case": True},
        activation_fn=IDENTITY,
        prompts={"q": "query: "},
        default_prompt_name="q",
    )
    (folder / left_out).unlink()
    equals_cross_encoder(folder)


def test_a_chosen_activation_overrides_an_unknown_one(tmp_path: Path) -> None:
    folder = settings(bert(tmp_path / "model", num_labels=1), activation_fn="torch.nn.Tanh")
    with pytest.raises(UnusableFolder, match="--activation"):
        Scorer.load(folder)
    assert Scorer.load(folder, activation="none").info.activation == "none"
