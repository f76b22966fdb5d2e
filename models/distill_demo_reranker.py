"""Distill a real reranker into the demo reranker, whose first training is over.

    python models/distill_demo_reranker.py START PACKAGES.parquet TEACHER models/demo-reranker

START is the folder that `train_demo_reranker.py` wrote. TEACHER is the folder of a real reranker:
its scores of some training pairs are targets, none of its weights are used. The target of a query
is a softmax over the right answer, BM25's scores and the teacher's. Copies are trained
with different seeds; the result is the average of START and of them. Every random choice is seeded;
the schedule counts steps, not seconds.
"""

from __future__ import annotations

import argparse
import copy
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from distillation.fast_bert import logits
from distillation.groups import Groups
from distillation.teacher import N_DOCUMENTS, teacher_scores
from tokenizers import Tokenizer
from torch import nn
from train_demo_reranker import QUERY_TOKENS, SEED, SPECIAL, VOCAB_SIZE, encode
from transformers import BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from package_search import bm25_candidates, load

DOCUMENT_TOKENS, GROUPS_PER_STEP, WARMUP_STEPS = 129, 14, 50


def distill(
    model: BertForSequenceClassification, groups: Groups, steps: int, peak_lr: float
) -> None:
    """Train with the divergence of the softmax of a group's scores from its target's."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.01, fused=True)
    started, smoothed = time.monotonic(), 0.0
    for step in range(steps):
        batch = [groups.next() for _ in range(GROUPS_PER_STEP)]
        target = torch.from_numpy(np.stack([group.target for group in batch])).softmax(-1)
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = peak_lr * min(1.0, step / WARMUP_STEPS) * max(0.02, decay)
        scores = logits(model, [pair for group in batch for pair in group.pairs])
        loss = F.kl_div(scores.view_as(target).log_softmax(-1), target, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smoothed += max(0.01, 1 / (step + 1)) * (loss.item() - smoothed)
        if (step + 1) % 50 == 0:
            elapsed = time.monotonic() - started
            print(f"step {step + 1}/{steps} loss {smoothed:.3f} {elapsed:.0f} s", flush=True)


def averaged(models: list[BertForSequenceClassification]) -> BertForSequenceClassification:
    """Return a model whose weights are the means of the models' weights."""
    average = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    means = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    average.load_state_dict(means)
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


def frequencies(documents: list[np.ndarray]) -> np.ndarray:
    """Return in how many documents each token is; special tokens are the most frequent ones."""
    counts = np.bincount(
        np.concatenate([np.unique(ids) for ids in documents]), minlength=VOCAB_SIZE
    )
    counts[: len(SPECIAL)] = len(documents) + 1
    return counts


def main() -> None:
    """Distill and save a model."""
    parser = argparse.ArgumentParser(description="Distill a reranker into the demo reranker.")
    parser.add_argument("start", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--queries", type=int, default=16000)
    parser.add_argument("--teacher-queries", type=int, default=3000)
    parser.add_argument("--cache", type=Path, help="keeps the teacher's scores [a temporary one]")
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    search = load(args.packages)
    train = search.train[: args.queries]
    texts = [search.queries[i] for i in train]
    candidates, bm25 = bm25_candidates(search.documents, texts)
    with tempfile.TemporaryDirectory() as temporary:
        cache = args.cache or Path(temporary)
        scored = texts[: args.teacher_queries]
        teacher = teacher_scores(args.teacher, cache, scored, search.documents, train, candidates)
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    tokenizer.no_truncation()
    queries = [np.array(ids) for ids in encode(tokenizer, texts, QUERY_TOKENS)]
    documents = [np.array(ids) for ids in encode(tokenizer, search.documents, DOCUMENT_TOKENS)]
    frequency = frequencies([documents[i] for i in search.train])
    model = BertForSequenceClassification.from_pretrained(args.start, dtype=torch.float32).train()
    copies = [copy.deepcopy(model) for _ in range(args.copies)]
    for n, trained in enumerate(copies):
        groups = Groups(queries, documents, train, candidates, bm25, teacher, frequency, SEED + n)
        distill(trained, groups, args.steps, args.lr)
    model = averaged([model, *copies])
    calibrate(model, groups)
    if not (args.target.exists() and args.start.samefile(args.target)):
        shutil.copytree(args.start, args.target, dirs_exist_ok=True)
    model.half().save_pretrained(args.target)
    for path in args.target.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    main()
