"""Train the demo reranker from random weights: a few-MB BERT cross-encoder for package search.

    python models/train_demo_reranker.py PACKAGES.parquet models/demo-reranker [--steps N]

There are two stages. Static word vectors learn which words are related (in-batch contrastive loss).
They become the word embeddings of a small BERT whose query and key projections start equal, so that
a word attends to its own repetition in the other text. Then the cross-encoder learns to distinguish
a package's own description from BM25's best wrong ones. A default initialisation did not learn this
task at all. Every random choice is seeded; the schedule counts steps, not seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from package_search import PackageSearch, bm25_candidates, load

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP = 0, 1, 2, 3
VOCAB_SIZE, HIDDEN, LAYERS, HEADS, MAX_LENGTH = 16000, 128, 2, 4, 160
QUERY_TOKENS, DOCUMENT_TOKENS = 28, 129  # with three special tokens: MAX_LENGTH
GROUP, QUERIES_PER_STEP, NEGATIVES_FROM = 8, 16, 40
SEED = 0

Ids = list[list[int]]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Train a WordPiece tokenizer for pairs."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=SPECIAL, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str], n_tokens: int) -> Ids:
    """Return at most `n_tokens` ids of each text, without special tokens."""
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids[:n_tokens] or [UNK] for encoding in encodings]


def padded(rows: Ids) -> Tensor:
    """Return the ids as an int64 tensor (n, longest), padded with PAD."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


class StaticVectors(nn.Module):
    """Weighted sums of word vectors; a word's weight starts at its inverse document frequency."""

    def __init__(self, documents: Ids) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(VOCAB_SIZE, HIDDEN, mode="sum", padding_idx=PAD)
        nn.init.normal_(self.vectors.weight, std=0.05)
        self.weights = nn.Embedding(VOCAB_SIZE, 1, padding_idx=PAD)
        frequency = np.bincount(
            np.concatenate([np.unique(ids) for ids in documents]), minlength=VOCAB_SIZE
        )
        idf = np.log((len(documents) + 1) / (frequency + 1)) / 5
        self.weights.weight.data[:, 0] = torch.tensor(idf, dtype=torch.float32)

    def forward(self, ids: Tensor) -> Tensor:
        """Return a unit vector for each row of ids, (n, HIDDEN)."""
        weights = self.weights(ids).squeeze(-1).abs() * (ids > PAD)
        return F.normalize(self.vectors(ids, per_sample_weights=weights), dim=-1)


def train_static(queries: Ids, documents: Ids, train: list[int], epochs: int) -> StaticVectors:
    """Train the vectors so that a query is nearest to its own document in the batch."""
    rng = random.Random(SEED)
    model = StaticVectors([documents[i] for i in train])
    optimizer = torch.optim.Adam(
        [
            {"params": model.vectors.parameters(), "lr": 3e-3},
            {"params": model.weights.parameters(), "lr": 1e-2},
        ]
    )
    order, size = list(train), 512
    for _ in range(epochs):
        rng.shuffle(order)
        for start in range(0, len(order) - size, size):
            batch = order[start : start + size]
            scores = (
                model(padded([queries[i] for i in batch]))
                @ model(padded([documents[i] for i in batch])).T
            )
            loss = F.cross_entropy(scores * 20, torch.arange(size))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"static vectors: loss {loss.item():.3f}", flush=True)
    return model


@torch.no_grad()
def cross_encoder(static: StaticVectors) -> BertForSequenceClassification:
    """Make a BERT that starts with the static vectors and with heads that match words."""
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=MAX_LENGTH,
        num_labels=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    embeddings = model.bert.embeddings
    weight = static.weights.weight.abs()
    vectors = F.normalize(static.vectors.weight, dim=-1) * (0.5 + weight / weight.mean())
    vectors = vectors * 0.06 * math.sqrt(HIDDEN) / 1.5
    embeddings.word_embeddings.weight.copy_(vectors)
    embeddings.word_embeddings.weight[[CLS, SEP]] = torch.randn(2, HIDDEN) * 0.06
    embeddings.position_embeddings.weight.mul_(0.2)
    segment = F.normalize(torch.randn(HIDDEN), dim=0) * vectors[5:].norm(dim=1).mean() * 0.7
    embeddings.token_type_embeddings.weight[0] = -segment
    embeddings.token_type_embeddings.weight[1] = segment
    # Matching must not see the segment, or a query word would prefer its own side.
    direction = F.normalize(segment, dim=0)
    blind = torch.eye(HIDDEN) - torch.outer(direction, direction)
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        projection = torch.randn(HIDDEN, HIDDEN) / math.sqrt(HIDDEN) @ blind
        attention.query.weight.copy_(projection)
        attention.key.weight.copy_(projection)
        nn.init.orthogonal_(attention.value.weight, 0.7)
        layer.attention.output.dense.weight.copy_(attention.value.weight.T)
    return model


def logits(
    model: BertForSequenceClassification, pairs: list[tuple[list[int], list[int]]], chunk: int
) -> Tensor:
    """Return scores in the order of `pairs`; chunks have similar lengths, for little padding."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    parts = []
    for start in range(0, len(order), chunk):
        rows = [pairs[i] for i in order[start : start + chunk]]
        ids = padded([[CLS, *query, SEP, *document, SEP] for query, document in rows])
        types = padded([[0] * (len(q) + 2) + [1] * (len(d) + 1) for q, d in rows])
        with torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=ids, token_type_ids=types, attention_mask=(ids > PAD).long())
        parts.append(out.logits[:, 0].float())
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[inverse]


def train_cross_encoder(
    model: BertForSequenceClassification,
    queries: Ids,
    documents: Ids,
    train: list[int],
    candidates: np.ndarray,
    steps: int,
    peak_lr: float,
) -> None:
    """Train with a softmax over one right and `GROUP - 1` of BM25's wrong documents.

    `candidates[n]` belong to the query `train[n]`.
    """
    rng = random.Random(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.01)
    positions: list[int] = []
    started, smoothed = time.monotonic(), math.log(GROUP)
    for step in range(steps):
        if len(positions) < QUERIES_PER_STEP:
            positions = rng.sample(range(len(train)), len(train))
        batch, positions = positions[:QUERIES_PER_STEP], positions[QUERIES_PER_STEP:]
        pairs = []
        for n in batch:
            wrong = [int(j) for j in candidates[n] if j != train[n]][:NEGATIVES_FROM]
            for j in [train[n], *rng.sample(wrong, GROUP - 1)]:
                pairs.append((queries[train[n]], documents[j]))
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min(1.0, step / 200) * max(0.02, decay)
        scores = logits(model, pairs, chunk=32).view(len(batch), GROUP)
        loss = F.cross_entropy(scores, torch.zeros(len(batch), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smoothed += 0.01 * (loss.item() - smoothed)
        if (step + 1) % 200 == 0:
            elapsed = time.monotonic() - started
            print(f"step {step + 1}/{steps} loss {smoothed:.3f} {elapsed:.0f} s", flush=True)


@torch.inference_mode()
def held_out_mrr(
    model: BertForSequenceClassification, search: PackageSearch, queries: Ids, documents: Ids
) -> dict[str, float]:
    """Return the MRR@10 of BM25's order and the model's over its top 50, on held-out packages."""
    found, _ = bm25_candidates(search.documents, [search.queries[i] for i in search.held_out])
    sums = {"bm25": 0.0, "model": 0.0}
    for n, i in enumerate(search.held_out):
        scores = logits(model, [(queries[i], documents[j]) for j in found[n]], chunk=50).numpy()
        orders = {"bm25": found[n], "model": found[n][np.argsort(-scores, kind="stable")]}
        for name, order in orders.items():
            place = np.flatnonzero(order[:10] == i)
            sums[name] += 1 / (1 + int(place[0])) if place.size else 0.0
    return {name: total / len(search.held_out) for name, total in sums.items()}


def save(model: BertForSequenceClassification, tokenizer: Tokenizer, target: Path) -> None:
    """Save the weights in fp16, readable by every user, and the tokenizer with its token types."""
    model.half().save_pretrained(target)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=model.config.max_position_embeddings,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)


def main() -> None:
    """Train and save a model, and print its figures."""
    parser = argparse.ArgumentParser(description="Train the demo reranker.")
    parser.add_argument("packages", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--static-epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    search = load(args.packages)
    tokenizer = train_tokenizer(
        [f"{search.queries[i]} {search.documents[i]}" for i in search.train]
    )
    queries = encode(tokenizer, search.queries, QUERY_TOKENS)
    documents = encode(tokenizer, search.documents, DOCUMENT_TOKENS)
    candidates, _ = bm25_candidates(search.documents, [search.queries[i] for i in search.train])
    print(f"{len(search.train)} training queries, {len(search.held_out)} held out", flush=True)
    model = cross_encoder(train_static(queries, documents, search.train, args.static_epochs))
    train_cross_encoder(model, queries, documents, search.train, candidates, args.steps, args.lr)
    model.eval()
    figures = held_out_mrr(model, search, queries, documents)
    save(model, tokenizer, args.target)
    print(json.dumps({"held_out_mrr@10": figures, "steps": args.steps}))


if __name__ == "__main__":
    main()
