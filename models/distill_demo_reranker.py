"""Distill a real reranker into the demo reranker, whose first training is over.

    python models/distill_demo_reranker.py START PACKAGES.parquet TEACHER models/demo-reranker

START is the folder that `train_demo_reranker.py` wrote. TEACHER is the folder of a real reranker:
its scores of some training pairs are targets, none of its weights are used. Searches are of two
kinds: a short description looks for its long one, a sentence for the rest of its description. The
target of a query is a softmax over the right answer, BM25's scores and the teacher's. The result is
a moving average of the weights. Every random choice is seeded; the schedule counts steps, not
seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from distillation.bm25 import TokenBm25
from distillation.dev import dev_ndcg
from distillation.doubled import doubled
from distillation.fast_bert import Ids
from distillation.groups import Encoded, Groups
from distillation.searches import descriptions, sentences
from distillation.teacher import teacher_scores
from distillation.training import calibrate, distill
from tokenizers import Tokenizer
from torch import nn
from train_demo_reranker import SEED, SPECIAL, VOCAB_SIZE, encode, save
from transformers import BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from package_search import load

MAX_LENGTH, QUERY_TOKENS, DOCUMENT_TOKENS, N_DEV = 384, 60, 192, 400
# Share of the groups, share of these with the teacher's scores, weights of right, BM25, teacher.
OF_DESCRIPTIONS, OF_SENTENCES = (0.7, 0.3, 4.0, 7.0, 0.4), (0.3, 0.5, 2.0, 10.0, 0.5)


def lengthened(start: Path) -> BertForSequenceClassification:
    """Return the model of `start` with MAX_LENGTH positions; the new ones are a mean of the old."""
    model = BertForSequenceClassification.from_pretrained(start, dtype=torch.float32).train()
    embeddings = model.bert.embeddings
    old = embeddings.position_embeddings.weight.data
    new = old[len(old) // 2 :].mean(0).expand(MAX_LENGTH - len(old), -1)
    embeddings.position_embeddings = nn.Embedding.from_pretrained(
        torch.cat([old, new]), freeze=False
    )
    embeddings.register_buffer("position_ids", torch.arange(MAX_LENGTH)[None], persistent=False)
    model.config.max_position_embeddings = MAX_LENGTH
    return model


def frequencies(documents: list[Ids]) -> np.ndarray:
    """Return in how many documents each token is; special tokens are the most frequent ones."""
    counts = np.bincount(
        np.concatenate([np.unique(ids) for ids in documents]), minlength=VOCAB_SIZE
    )
    counts[: len(SPECIAL)] = len(documents) + 1
    return counts


def main() -> None:
    """Distill and save a model, and print its figures."""
    parser = argparse.ArgumentParser(description="Distill a reranker into the demo reranker.")
    parser.add_argument("start", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--sentences", type=int, default=16000)
    parser.add_argument("--teacher-queries", type=int, nargs=2, default=(3000, 2000))
    parser.add_argument("--cache", type=Path, help="keeps the teacher's scores [a temporary one]")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--double", action="store_true", help="train a model of twice the width")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    search = load(args.packages)
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    tokenizer.no_truncation()

    def encoded(texts: list[str], n_tokens: int) -> list[Ids]:
        return [np.array(ids) for ids in encode(tokenizer, texts, n_tokens)]

    documents = encoded(search.documents, DOCUMENT_TOKENS)
    frequency = frequencies([documents[i] for i in search.train])
    kinds = {
        "descriptions": (descriptions(search, search.train), OF_DESCRIPTIONS),
        "sentences": (sentences(search, search.train[::-1], args.sentences), OF_SENTENCES),
    }
    tasks = []
    with tempfile.TemporaryDirectory() as temporary:
        for (name, (found, weights)), n in zip(kinds.items(), args.teacher_queries, strict=True):
            cache = (args.cache or Path(temporary)) / name
            teacher = teacher_scores(args.teacher, cache, found, search.documents, n)
            queries = encoded(found.queries, QUERY_TOKENS)
            answers = encoded(found.answers, DOCUMENT_TOKENS)
            tasks.append(
                Encoded(queries, answers, found.right, found.candidates, teacher, *weights)
            )
    bm25 = TokenBm25(tokenizer, frequency, len(search.train))
    groups = Groups(tasks, documents, bm25, frequency, MAX_LENGTH, SEED)
    start = lengthened(args.start)
    start = doubled(start) if args.double else start
    model = distill(start, groups, args.steps, args.lr)
    calibrate(model, groups)
    dev = {
        "descriptions": descriptions(search, search.dev[:N_DEV]),
        "sentences": sentences(search, search.dev, N_DEV),
    }
    figures = {
        name: dev_ndcg(model, some, search.documents, encoded, bm25, QUERY_TOKENS)
        for name, some in dev.items()
    }
    print(json.dumps({"dev_ndcg@10": figures, "steps": args.steps}))
    save(model, tokenizer, args.target)


if __name__ == "__main__":
    main()
