"""Random checkpoints; weights are larger than a real initialization, so that logits differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    MegatronBertConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.support.models.vocabularies import (
    modernbert_tokenizer,
    qwen_tokenizer,
    unigram,
    wordpiece,
)

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}

# With heads of 32, which the compiled attention takes.
WIDER = {"hidden_size": 64}


def save(
    folder: Path,
    tokenizer: Any,
    model: Any,
    *,
    max_length: int,
    config: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
    files: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint with random weights.

    Args:
        config: keys of config.json to add or change.
        without: keys of config.json to remove.
        files: further files, as text or as JSON values.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    tokenizer.model_max_length = max_length
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text()) | (config or {})
    for key in without:
        written.pop(key, None)
    for name, content in ({"config.json": written} | (files or {})).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def bert(folder: Path, **options: Any) -> Path:
    tokenizer = wordpiece()
    settings = {"max_position_embeddings": 128, "num_hidden_layers": 3} | SMALL | options
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **settings)
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=config.max_position_embeddings)


def roberta(folder: Path, config_class: Any = XLMRobertaConfig, **options: Any) -> Path:
    tokenizer = unigram()
    settings = {"max_position_embeddings": 8194, "num_hidden_layers": 2, "num_labels": 1}
    config = config_class(
        vocab_size=len(tokenizer),
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
        **(settings | SMALL | options),
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=8192)


def modernbert(folder: Path, **options: Any) -> Path:
    tokenizer = modernbert_tokenizer()
    settings = {"num_hidden_layers": 4, "num_labels": 1, "local_attention": 32}
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=0,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        **(settings | SMALL | options),
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=8192)


def megatron_bert(folder: Path) -> Path:
    """Write a model that has no packed forward."""
    tokenizer = wordpiece()
    config = MegatronBertConfig(
        vocab_size=len(tokenizer), pad_token_id=0, num_hidden_layers=2, num_labels=1, **SMALL
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=512)


def qwen3(folder: Path, chat_template: str | None = None) -> Path:
    tokenizer = qwen_tokenizer()
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    save(folder, tokenizer, AutoModelForCausalLM.from_config(config), max_length=512)
    return folder if chat_template else with_logit_score(folder, tokenizer)


def with_logit_score(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Add the files of Sentence Transformers for a language model that scores bare pairs."""
    modules = "sentence_transformers.{}".format
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": modules("base.modules.Transformer")},
            {
                "idx": 1,
                "name": "1",
                "path": "1_LogitScore",
                "type": modules("cross_encoder.modules.logit_score.LogitScore"),
            },
        ],
    )
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    write_json(
        folder / "1_LogitScore" / "config.json", {"true_token_id": yes, "false_token_id": no}
    )
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "text-generation"})
    return folder


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


CHAT_TEMPLATE = """<|im_start|>system
{{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first
   | default("Answer yes or no.") }}<|im_end|>
<|im_start|>user
{% for message in messages if message.role in ("query", "document") -%}
<{{ message.role }}>: {{ message.content }}
{% endfor %}<|im_end|>
<|im_start|>assistant
"""

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "bert": partial(bert, num_labels=1),
    "bert-two-labels": partial(bert, num_labels=2),
    "bert-no-activation": partial(
        bert,
        num_labels=1,
        sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
    ),
    "bert-gelu-new": partial(bert, num_labels=1, hidden_act="gelu_new", **WIDER),
    "xlm-roberta": partial(roberta, **WIDER),
    "roberta-two-labels": partial(roberta, config_class=RobertaConfig, num_labels=2),
    "modernbert": modernbert,
    "modernbert-local-last": partial(modernbert, num_hidden_layers=3, **WIDER),
    "modernbert-mean": partial(
        modernbert, num_hidden_layers=2, classifier_pooling="mean", num_labels=2, **WIDER
    ),
    "megatron-bert": megatron_bert,
    "qwen3": qwen3,
    "qwen3-chat": partial(qwen3, chat_template=CHAT_TEMPLATE),
}
