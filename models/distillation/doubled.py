"""Make a BERT twice as wide, to see what more parameters would learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

_NOISE = 0.02  # of a weight's own deviation: equal halves would learn the same thing


def doubled(model: BertForSequenceClassification) -> BertForSequenceClassification:
    """Return a model of twice the width, heads and inner width that gives nearly the same scores.

    Each weight is copied to both halves of the rows and, halved, to both halves of the columns
    (Chen, Goodfellow and Shlens 2016, "Net2Net"). Noise makes the halves differ.
    """
    values = model.config.to_dict()
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        values[name] *= 2
    wide = BertForSequenceClassification(BertConfig.from_dict(values)).train()
    with torch.no_grad():
        for new, old in zip(wide.modules(), model.modules(), strict=True):
            for name, weight in old.named_parameters(recurse=False):
                target: Tensor = getattr(new, name)
                shares = 2 if isinstance(old, nn.Linear) and weight.dim() == 2 else 1
                copies = [n // m for n, m in zip(target.shape, weight.shape, strict=True)]
                target.copy_(weight.repeat(copies) / shares)
                target += _NOISE * weight.std(unbiased=False) * torch.randn(target.shape)
    return wide
