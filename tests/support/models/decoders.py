"""Miniature decoders that rerank: language models and their classifiers, with chat templates."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers as hf
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.support.models.checkpoints import save
from tests.support.models.vocabularies import byte_bpe
from tests.support.models.zoo import LOGIT_SCORE, cross_encoder, modules

# The Qwen team's template is made for conversations and knows no query and no document.
CHAT = (
    "{%- for message in messages %}{%- if message.role in ('system', 'user', 'assistant') %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)


def _content(role: str) -> str:
    return f"messages | selectattr('role', 'eq', '{role}') | map(attribute='content') | first"


QWEN = (
    "<|im_start|>system\nAnswer only yes or no.<|im_end|>\n<|im_start|>user\n"
    f"<Instruct>: {{{{ {_content('system')} | default('Find passages') }}}}\n"
    f"<Query>: {{{{ {_content('query')} }}}}\n<Document>: {{{{ {_content('document')} }}}}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
ZERANK = (
    f"<|im_start|>system\n{{{{ {_content('query')} }}}}<|im_end|>\n"
    f"<|im_start|>user\n{{{{ {_content('document')} }}}}<|im_end|>\n"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)


_CAUSAL_TASK = {
    "transformer_task": "text-generation",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "causal_logits",
}
_CLASSIFIER_TASK = {
    "transformer_task": "sequence-classification",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "scores",
}


def language_model(
    folder: Path,
    kind: str = "qwen3",
    answers: tuple[str, ...] = ("yes", "no"),
    *,
    template: str | None = None,
    with_bos: bool = False,
    auto: Any = AutoModelForCausalLM,
    score: tuple[str, str | None] | None = None,
    sizes: dict[str, Any] | None = None,
    files: dict[str, Any] | None = None,
    **written: Any,
) -> Path:
    """Write a decoder.

    Args:
        score: the answers that mean relevant and not relevant; they are named by a LogitScore.
    """
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", *answers]
    tokenizer = byte_bpe(special, None, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    if with_bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 3)]
        )
        tokenizer.bos_token = "<bos>"
    tokenizer.padding_side = "left"
    tokenizer.chat_template = template
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    config = hf.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **(small | (sizes or {})))
    files = dict(files or {})
    if score is not None:
        ids = [None if token is None else tokenizer.convert_tokens_to_ids(token) for token in score]
        files |= {
            "modules.json": modules(("1_LogitScore", LOGIT_SCORE)),
            "1_LogitScore/config.json": {"true_token_id": ids[0], "false_token_id": ids[1]},
        }
    return save(folder, tokenizer, auto.from_config(config), max_length=512, files=files, **written)


qwen3_st = partial(
    language_model,
    template=QWEN,
    score=("yes", "no"),
    files={
        "sentence_bert_config.json": _CAUSAL_TASK,
        "config_sentence_transformers.json": cross_encoder(prompts={"query": "Find an answer"}),
    },
)
zerank = partial(
    language_model,
    answers=("Yes", "no"),
    template=ZERANK,
    score=("Yes", None),
    files={
        "sentence_bert_config.json": _CAUSAL_TASK
        | {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}},
        "config_sentence_transformers.json": cross_encoder("linear.Identity"),
    },
)
qwen3_classifier = partial(
    language_model, auto=AutoModelForSequenceClassification, sizes={"num_labels": 1}
)
qwen3_classifier_st = partial(
    qwen3_classifier,
    template=QWEN,
    files={
        "modules.json": modules(),
        "sentence_bert_config.json": _CLASSIFIER_TASK,
        "config_sentence_transformers.json": cross_encoder(),
    },
)
