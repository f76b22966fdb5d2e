"""Train a model on groups, and set the level of its scores."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from distillation.fast_bert import logits
from distillation.groups import Groups
from distillation.teacher import N_DOCUMENTS
from torch import nn
from transformers import BertForSequenceClassification

_GROUPS_PER_STEP, _WARMUP_STEPS, _DECAY_STEPS, _AVERAGE_STEPS = 14, 100, 500, 300


def distill(
    model: BertForSequenceClassification, groups: Groups, steps: int, peak_lr: float
) -> BertForSequenceClassification:
    """Train the model, and return the moving average of its weights.

    The loss is the divergence of the softmax of a group's scores from its target's. The rate rises
    at the start, stays, and falls to zero in the last steps.
    """
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.01, fused=True)
    started, smoothed = time.process_time(), 0.0
    for step in range(steps):
        batch = [groups.next() for _ in range(_GROUPS_PER_STEP)]
        target = torch.from_numpy(np.stack([group.target for group in batch])).softmax(-1)
        height = min(1.0, step / _WARMUP_STEPS, (steps - step) / _DECAY_STEPS)
        optimizer.param_groups[0]["lr"] = peak_lr * height
        scores = logits(model, [pair for group in batch for pair in group.pairs])
        loss = F.kl_div(scores.view_as(target).log_softmax(-1), target, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1 / min(step + 1, _AVERAGE_STEPS))
        smoothed += max(0.01, 1 / (step + 1)) * (loss.item() - smoothed)
        if (step + 1) % 100 == 0:
            spent = time.process_time() - started
            print(f"step {step + 1}/{steps} loss {smoothed:.3f} {spent:.0f} CPU s", flush=True)
    return average


@torch.no_grad()
def calibrate(model: BertForSequenceClassification, groups: Groups) -> None:
    """Shift the bias so that the mean score is the share of right documents.

    No order changes: a softmax leaves the level of the logits open.
    """
    scores = logits(model, [pair for _ in range(100) for pair in groups.next().pairs])
    shifts = torch.arange(-20, 20, 0.01)
    means = (scores[:, None] + shifts).sigmoid().mean(0)
    model.classifier.bias += shifts[(means - 1 / N_DOCUMENTS).abs().argmin()]
