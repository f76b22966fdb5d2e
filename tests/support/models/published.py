"""Miniatures of published LLM rerankers as their repositories have them, and their cards' steps.

The answer tokens have the ids of the published vocabularies, since recipes rely on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from tests.support.models.checkpoints import save
from tests.support.models.own_code import nemotron as nemotron_folder
from tests.support.models.vocabularies import byte_bpe

Pairs = list[tuple[str, str]]
# As the Qwen team's: it knows no query and no document, and drops no line end.
CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>"]
JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
THOUGHT = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query"
PASSAGE_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)
TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)


def tokenizer_with(ids: dict[str, int], *, bos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer in which these texts are one token each, with these ids."""
    trained = byte_bpe(SPECIAL, None, pad_token="<|endoftext|>").backend_tokenizer
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    names = list(state["vocab"])
    for text in ids:
        for end in range(2, len(text) + 1):
            pair = (text[: end - 1], text[end - 1])
            if text[:end] not in names:
                names.append(text[:end])
            if pair not in merges:
                merges.insert(0, pair) if end == 2 else merges.insert(1, pair)
    free = (at for at in range(20_000) if at not in ids.values())
    vocabulary = {name: ids[name] if name in ids else next(free) for name in names}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A",
            pair="<bos> $A <bos>:1 $B:1",
            special_tokens=[("<bos>", vocabulary["<bos>"])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **({"bos_token": "<bos>"} if bos else {}),
    )


def decoder(
    folder: Path,
    kind: str,
    ids: dict[str, int],
    *,
    bos: bool = False,
    auto: Any = AutoModelForCausalLM,
    template: str | None = None,
    positions: int = 1024,
    written: dict[str, Any] | None = None,
    **sizes: Any,
) -> Path:
    """Write a small decoder with random weights."""
    tokenizer = tokenizer_with(ids, bos=bos)
    tokenizer.chat_template = template
    vocabulary = tokenizer.get_vocab()
    config = hf.AutoConfig.for_model(
        kind,
        vocab_size=max(vocabulary.values()) + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        pad_token_id=vocabulary["<|endoftext|>"],
        **sizes,
    )
    model = auto.from_config(config)
    return save(folder, tokenizer, model, max_length=positions, **(written or {}))


def loaded(folder: Path, auto: Any = AutoModelForCausalLM, **options: Any) -> tuple[Any, Any]:
    model = auto.from_pretrained(folder, dtype=torch.float32, **options)
    return AutoTokenizer.from_pretrained(folder, **options), model


def ids_of(tokenizer: Any, text: str, **options: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, **options)["input_ids"]
    return ids


@torch.inference_mode()
def last_logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Return the logits behind each row's last token."""
    return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows]).float()


def bge(folder: Path, pairs: Pairs, max_length: int, prompt: str | None = None) -> torch.Tensor:
    tokenizer, model = loaded(folder)
    rows = []
    for query, passage in pairs:
        first = ids_of(tokenizer, f"A: {query}", max_length=max_length * 3 // 4, truncation=True)
        second = ids_of(tokenizer, f"B: {passage}", max_length=max_length, truncation=True)
        first = [tokenizer.bos_token_id, *first]
        second = [*ids_of(tokenizer, "\n"), *second][: max_length - len(first)]
        tail = ids_of(tokenizer, "\n") + ids_of(tokenizer, prompt or PASSAGE_PROMPT)
        rows.append(first + second + tail)
    return last_logits(model, rows)[:, ids_of(tokenizer, "Yes")[0]]


def mxbai(folder: Path, pairs: Pairs, max_length: int, prompt: str | None = None) -> torch.Tensor:
    tokenizer, model = loaded(folder)
    line = ids_of(tokenizer, "\n")
    head = ids_of(
        tokenizer,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
    )
    tail = line + ids_of(tokenizer, TASK) + ids_of(tokenizer, "<|im_end|>\n<|im_start|>assistant\n")
    rows = []
    for query, document in pairs:
        text = f"query: {query}" if prompt is None else f"instruction: {prompt}\nquery: {query}"
        first = ids_of(tokenizer, text, max_length=max_length * 3 // 4, truncation=True)
        second = line + ids_of(
            tokenizer, f"document: {document}", max_length=max_length, truncation=True
        )
        rows.append(head + first + second[: max_length - len(first)] + tail)
    logits = last_logits(model, rows)
    return logits[:, ids_of(tokenizer, "1")[0]] - logits[:, ids_of(tokenizer, "0")[0]]


def qwen(folder: Path, pairs: Pairs, max_length: int, prompt: str | None = None) -> torch.Tensor:
    tokenizer, model = loaded(folder)
    head, tail = (tokenizer.encode(text, add_special_tokens=False) for text in (JUDGE, THOUGHT))
    texts = [
        f"<Instruct>: {prompt or INSTRUCT}\n<Query>: {query}\n<Document>: {document}"
        for query, document in pairs
    ]
    body = tokenizer(
        texts, truncation="longest_first", max_length=max_length - len(head) - len(tail)
    )
    logits = last_logits(model, [head + row + tail for row in body["input_ids"]])
    both = logits[:, tokenizer.convert_tokens_to_ids(["no", "yes"])]
    return torch.nn.functional.log_softmax(both, dim=1)[:, 1].exp()


@torch.inference_mode()
def classified(folder: Path, rows: list[list[int]], **options: Any) -> torch.Tensor:
    _, model = loaded(folder, AutoModelForSequenceClassification, **options)
    return torch.stack([model(torch.tensor([row])).logits[0, 0] for row in rows])


def qwen_classifier(
    folder: Path, pairs: Pairs, max_length: int, prompt: str | None = None
) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tail = ids_of(tokenizer, THOUGHT)
    rows = []
    for query, document in pairs:
        head = ids_of(tokenizer, f"{JUDGE}<Instruct>: {prompt or INSTRUCT}\n<Query>: {query}\n")
        text = ids_of(tokenizer, f"<Document>: {document}")
        rows.append(head + text[: max_length - len(head) - len(tail)] + tail)
    return classified(folder, rows).sigmoid()


def nemotron(folder: Path, pairs: Pairs, max_length: int) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    texts = [f"question:{query} \n \n passage:{passage}" for query, passage in pairs]
    rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return classified(folder, rows, trust_remote_code=True)


def zerank(folder: Path, pairs: Pairs, max_length: int) -> torch.Tensor:
    tokenizer, model = loaded(folder)
    tail = ids_of(tokenizer, "<|im_end|>\n<|im_start|>assistant\n")
    rows = []
    for query, document in pairs:
        messages = [
            {"role": "system", "content": query.strip()},
            {"role": "user", "content": document.strip()},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        row = ids_of(tokenizer, text)
        rows.append(row if len(row) <= max_length else row[: max_length - len(tail)] + tail)
    yes = tokenizer.encode("Yes", add_special_tokens=False)[0]
    return last_logits(model, rows)[:, yes] / 5.0


def zerank_1(folder: Path, pairs: Pairs, max_length: int) -> torch.Tensor:
    return zerank(folder, pairs, max_length).sigmoid()


def contextual(
    folder: Path, pairs: Pairs, max_length: int, prompt: str | None = None
) -> torch.Tensor:
    """Score as the card does, but cut the document where the card would cut the question."""
    tokenizer, model = loaded(folder)
    ask = "" if prompt is None else f" {prompt}"
    rows = []
    for query, document in pairs:
        text = (
            "Check whether a given document contains information helpful to answer the query.\n"
            f"<Document> {document}\n<Query> {query}{ask} ??"
        )
        row = tokenizer(text)["input_ids"]
        if len(row) > max_length:
            tail = ids_of(tokenizer, f"\n<Query> {query}{ask} ??")
            assert row[-len(tail) :] == tail
            row = row[: max_length - len(tail)] + tail
        rows.append(row)
    return last_logits(model, rows)[:, 0]


@dataclass(frozen=True)
class Published:
    """A miniature: the hub id it is named by, its recipe, how to write it, its card's scores.

    Attributes:
        outer: texts that the card's length leaves out, each tokenized by itself.
        takes_prompt: whether the card takes an instruction.
        runs_code: whether the folder brings Python code of its own.
    """

    model_id: str
    recipe: str
    write: Callable[[Path], Path]
    card: Callable[..., torch.Tensor]
    outer: tuple[str, ...] = ()
    takes_prompt: bool = True
    runs_code: bool = False


ANSWERS = {"yes": 9693, "no": 2152, "Yes": 9454}
MXBAI_OUTER = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n",
    *("\n", TASK, "<|im_end|>\n<|im_start|>assistant\n"),
)
qwen3 = partial(decoder, kind="qwen3", ids=ANSWERS, template=CHAT)
PUBLISHED = [
    Published(
        "BAAI/bge-reranker-v2-gemma",
        "bge-gemma",
        partial(decoder, kind="gemma", ids={"Yes": 3553, "No": 1294}, bos=True),
        bge,
        ("\n", PASSAGE_PROMPT),
    ),
    Published(
        "mixedbread-ai/mxbai-rerank-base-v2",
        "mxbai-v2",
        partial(decoder, kind="qwen2", ids={"0": 15, "1": 16}, template=CHAT),
        mxbai,
        MXBAI_OUTER,
    ),
    Published("Qwen/Qwen3-Reranker-0.6B", "qwen3-reranker", qwen3, qwen),
    Published(
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls",
        "qwen3-reranker-seq-cls",
        partial(qwen3, auto=AutoModelForSequenceClassification, num_labels=1),
        qwen_classifier,
    ),
    Published(
        "nvidia/llama-nemotron-rerank-1b-v2",
        "nemotron-rerank",
        nemotron_folder,
        nemotron,
        takes_prompt=False,
        runs_code=True,
    ),
    Published("zeroentropy/zerank-1-small", "zerank-1", qwen3, zerank_1, takes_prompt=False),
    Published("zeroentropy/zerank-2", "zerank-2", qwen3, zerank, takes_prompt=False),
    Published(
        "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b", "ctxl-rerank-v2", qwen3, contextual
    ),
    Published(
        "ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b",
        "ctxl-rerank-v2",
        partial(decoder, kind="mistral", ids={}, bos=True),
        contextual,
    ),
]
