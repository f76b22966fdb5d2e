"""Compute a small BERT's scores for training on a CPU, faster than transformers does."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_demo_reranker import CLS, PAD, SEP
from transformers import BertForSequenceClassification

Ids = np.ndarray  # int64, one text without special tokens


class Pair(NamedTuple):
    """A query, a document, and by how many positions the document starts later."""

    query: Ids
    document: Ids
    shift: int = 0


_CHUNK, _WIDTHS = 40, 8


def logits(model: BertForSequenceClassification, pairs: list[Pair]) -> Tensor:
    """Return scores in the order of `pairs`; chunks have similar lengths, for little padding."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].query) + len(pairs[i].document))
    chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
    scores = torch.cat([_forward(model, [pairs[i] for i in chunk]) for chunk in chunks])
    return scores[torch.tensor(order).argsort()]


def _forward(model: BertForSequenceClassification, pairs: list[Pair]) -> Tensor:
    """Return the scores of one batch, in bf16 and with a last layer for the first token alone.

    Widths are multiples of 8, since oneDNN prepares every new shape.
    """
    rows = [np.concatenate([[CLS], pair.query, [SEP], pair.document, [SEP]]) for pair in pairs]
    ids = torch.full((len(rows), -(-max(map(len, rows)) // _WIDTHS) * _WIDTHS), PAD)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.from_numpy(row)
    n_first = torch.tensor([len(pair.query) + 2 for pair in pairs])
    is_second = (torch.arange(ids.shape[1]) >= n_first[:, None]) & (ids > PAD)
    types = is_second.long()
    positions = torch.arange(ids.shape[1]) + types * torch.tensor([[p.shift] for p in pairs])
    hidden = model.bert.embeddings(ids, token_type_ids=types, position_ids=positions).bfloat16()
    bias = torch.zeros(ids.shape, dtype=torch.bfloat16).masked_fill(ids == PAD, -1e4)
    *layers, last = model.bert.encoder.layer
    for layer in layers:
        hidden = _layer(layer, hidden, hidden, bias)
    first = _layer(last, hidden[:, :1], hidden, bias)
    scores: Tensor = model.classifier(model.bert.pooler(first.float()))[:, 0]
    return scores


def _layer(layer: nn.Module, queries: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
    """Return what a layer of BERT makes of `queries` (n, m, width), attending to `hidden`."""
    attention, output = layer.attention.self, layer.attention.output
    heads = (-1, attention.attention_head_size)
    query = _linear(attention.query, queries).unflatten(-1, heads).transpose(1, 2)
    key = _linear(attention.key, hidden).unflatten(-1, heads).transpose(1, 2)
    value = _linear(attention.value, hidden).unflatten(-1, heads).transpose(1, 2)
    weights = query @ key.transpose(-1, -2) / math.sqrt(heads[1]) + bias[:, None, None]
    context = (weights.softmax(-1) @ value).transpose(1, 2).flatten(2)
    attended = _norm(output.LayerNorm, _linear(output.dense, context) + queries)
    inner = F.gelu(_linear(layer.intermediate.dense, attended))
    return _norm(layer.output.LayerNorm, _linear(layer.output.dense, inner) + attended)


def _linear(linear: nn.Linear, hidden: Tensor) -> Tensor:
    return F.linear(hidden, linear.weight.bfloat16(), linear.bias.bfloat16())


def _norm(norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
    shape, weight, bias = norm.normalized_shape, norm.weight, norm.bias
    return F.layer_norm(hidden, shape, weight.bfloat16(), bias.bfloat16(), norm.eps)
