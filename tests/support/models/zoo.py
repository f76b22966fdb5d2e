"""Miniature checkpoints with the file sets of popular rerankers, and with random weights.

Keys and files are those of the published repositories; only sizes and weights are not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification

from tests.support.models.checkpoints import SMALL, WIDER, save
from tests.support.models.vocabularies import (
    CORPUS,
    modernbert_tokenizer,
    unigram,
    wordpiece,
)

IDENTITY = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


def modules(*more: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the content of modules.json: a Transformer, then each (path, type)."""
    listed = [("", TRANSFORMER), *more]
    return [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(listed)
    ]


def cross_encoder(
    activation: str = "activation.Sigmoid", *, prompts: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the content of config_sentence_transformers.json."""
    return {
        "__version__": {"sentence_transformers": "5.4.0"},
        "activation_fn": f"torch.nn.modules.{activation}",
        "default_prompt_name": next(iter(prompts), None) if prompts else None,
        "model_type": "CrossEncoder",
        "prompts": prompts or {},
    }


def bert_like(folder: Path, kind: str = "bert", max_length: int = 512, **written: Any) -> Path:
    tokenizer = wordpiece()
    if kind in ("distilbert", "mpnet", "eurobert"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "max_position_embeddings": 512} | SMALL
    sizes |= {
        "albert": {"embedding_size": 16},
        "distilbert": {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64},
        "electra": {"embedding_size": 16, "summary_activation": "gelu"},
        "mpnet": {"max_position_embeddings": 514},
        "roberta-prelayernorm": {"max_position_embeddings": 513},
    }.get(kind, {})
    sizes |= written.pop("sizes", {})
    config = hf.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=0, **({"num_labels": 1} | sizes)
    )
    auto = written.pop("auto", AutoModelForSequenceClassification)
    return save(folder, tokenizer, auto.from_config(config), max_length=max_length, **written)


def xlm_roberta(folder: Path, positions: int, **written: Any) -> Path:
    tokenizer = unigram()
    config = hf.XLMRobertaConfig(
        vocab_size=len(tokenizer),
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        max_position_embeddings=positions,
        num_hidden_layers=2,
        num_labels=1,
        layer_norm_eps=1e-5,
        **SMALL,
    )
    auto = written.pop("auto", AutoModelForSequenceClassification)
    model = auto.from_config(config)
    return save(folder, tokenizer, model, max_length=positions - 2, **written)


def gte(folder: Path, **options: Any) -> Path:
    tokenizer = unigram()
    config = hf.GteConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        num_hidden_layers=2,
        pad_token_id=1,
        **({"num_labels": 1} | SMALL | options),
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=8192)


_MXBAI = {
    "num_labels": 1,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def deberta(folder: Path, **options: Any) -> Path:
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="[UNK]", show_progress=False
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, special, strict=True)),
    )
    config = hf.DebertaV2Config(
        vocab_size=len(tokenizer),
        pad_token_id=0,
        max_position_embeddings=512,
        num_hidden_layers=2,
        **(_MXBAI | SMALL | options),
    )
    model = AutoModelForSequenceClassification.from_config(config)
    return save(folder, tokenizer, model, max_length=512)


def modernbert(folder: Path, pooling: str = "cls", **written: Any) -> Path:
    tokenizer = modernbert_tokenizer()
    config = hf.ModernBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=0,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        num_hidden_layers=3,
        num_labels=1,
        local_attention=32,
        classifier_pooling=pooling,
        **SMALL,
    )
    auto = written.pop("auto", AutoModelForSequenceClassification)
    return save(folder, tokenizer, auto.from_config(config), max_length=8192, **written)


_TOKENS_TASK = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


def modular(
    folder: Path,
    body: Callable[..., Path],
    *head: Any,
    activation: str = "linear.Identity",
) -> Path:
    """Write a checkpoint as `CrossEncoder.save`: a body, then each module in a subfolder."""
    listed = [
        (f"{place}_{type(part).__name__}", f"{type(part).__module__}.{type(part).__name__}")
        for place, part in enumerate(head, 1)
    ]
    body(
        folder,
        auto=hf.AutoModel,
        files={
            "modules.json": modules(*listed),
            "config_sentence_transformers.json": cross_encoder(activation),
            "sentence_bert_config.json": _TOKENS_TASK,
        },
    )
    for (path, _), part in zip(listed, head, strict=True):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        (folder / path).mkdir()
        part.save(str(folder / path))
    return folder


def ettin(folder: Path, pooling: str = "cls") -> Path:
    width = SMALL["hidden_size"]
    return modular(
        folder,
        modernbert,
        Pooling(width, pooling_mode=pooling),
        Dense(width, width, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(width),
        Dense(width, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    )


# Checkpoints of packed families for the tests that have no checkpoint of their own for them. Heads
# of 32 take the compiled attention.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "electra": partial(bert_like, kind="electra", sizes=WIDER),
    "electra-one-width": partial(bert_like, kind="electra", sizes={"embedding_size": 32}),
    "distilbert": partial(bert_like, kind="distilbert", sizes={"dim": 64}),
    "albert": partial(
        bert_like,
        kind="albert",
        sizes={
            "num_hidden_layers": 5,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "num_labels": 2,
        },
    ),
    "mpnet": partial(bert_like, kind="mpnet"),
    "deberta": partial(deberta, position_buckets=32),
    "deberta-c2p": partial(
        deberta,
        pos_att_type=["c2p"],
        share_att_key=False,
        position_buckets=-1,
        norm_rel_ebd="none",
        max_relative_positions=24,
    ),
    "deberta-p2c": partial(
        deberta,
        pos_att_type=["p2c"],
        share_att_key=False,
        position_biased_input=True,
        type_vocab_size=2,
        pooler_hidden_act="tanh",
    ),
    "nomic": partial(bert_like, kind="nomic_bert"),
    "jina-v3": partial(bert_like, kind="jina_embeddings_v3", sizes={"type_vocab_size": 2}),
    "eurobert": partial(
        bert_like,
        kind="eurobert",
        sizes={"num_attention_heads": 4, "num_key_value_heads": 2, **WIDER},
    ),
    "eurobert-bos": partial(bert_like, kind="eurobert", sizes={"classifier_pooling": "bos"}),
    "gte": partial(gte, type_vocab_size=0, **WIDER),
}
