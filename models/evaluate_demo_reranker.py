"""Measure a reranker on held-out package search, and on Cranfield where a folder of it is given.

    python models/evaluate_demo_reranker.py MODEL PACKAGES.parquet [--cranfield FOLDER]

Candidates are BM25's top 50. Prints and writes MODEL/eval.json: MRR@10 and nDCG@10 of BM25's order,
of the model's, and of both fused (z-scores per query, BM25 weighted 0.7).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
from ir_measures import RR, nDCG

from worker.engine.scorer import PairWindow, Scorer

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from package_search import N_CANDIDATES, bm25_candidates, load

_FUSED_BM25_WEIGHT = 0.7
_WINDOW_QUERIES = 80

Qrels = dict[str, dict[str, int]]


def measure(
    scorer: Scorer, queries: dict[str, str], documents: dict[str, str], qrels: Qrels
) -> dict[str, dict[str, float]]:
    """Each order's figures; empty documents are nobody's candidates."""
    doc_ids = [doc_id for doc_id, text in documents.items() if text.strip()]
    texts = [documents[doc_id] for doc_id in doc_ids]
    query_ids = list(queries)
    found, bm25 = bm25_candidates(texts, list(queries.values()))
    logits = _score(scorer, list(queries.values()), texts, found)
    fused = _standardized(logits) + _FUSED_BM25_WEIGHT * _standardized(bm25)
    figures = {}
    for name, scores in (("bm25", bm25), ("model", logits), ("fused", fused)):
        run = {
            query_id: {doc_ids[j]: float(s) for j, s in zip(found[n], scores[n], strict=True)}
            for n, query_id in enumerate(query_ids)
        }
        measured = ir_measures.calc_aggregate([RR @ 10, nDCG @ 10], qrels, run)
        figures[name] = {str(key): round(value, 4) for key, value in measured.items()}
    return figures


def _score(
    scorer: Scorer, queries: list[str], documents: list[str], found: np.ndarray
) -> np.ndarray:
    def windows() -> Iterator[PairWindow]:
        for start in range(0, len(queries), _WINDOW_QUERIES):
            rows = range(start, min(start + _WINDOW_QUERIES, len(queries)))
            yield PairWindow(
                [queries[n] for n in rows for _ in found[n]],
                [documents[j] for n in rows for j in found[n]],
            )

    scores = [window.logits for window in scorer.score(windows())]
    return np.concatenate(scores).reshape(len(queries), N_CANDIDATES)


def _standardized(scores: np.ndarray) -> np.ndarray:
    centred = scores - scores.mean(axis=1, keepdims=True)
    standardized: np.ndarray = centred / (scores.std(axis=1, keepdims=True) + 1e-6)
    return standardized


def packages(scorer: Scorer, path: Path) -> dict[str, dict[str, float]]:
    """Measure on the held-out packages."""
    search = load(path)
    return measure(
        scorer,
        {str(i): search.queries[i] for i in search.held_out},
        {str(i): text for i, text in enumerate(search.documents)},
        {str(i): {str(i): 1} for i in search.held_out},
    )


def cranfield(scorer: Scorer, folder: Path) -> dict[str, dict[str, float]]:
    """Measure on Cranfield; grades from 1 (minimum interest) to 4 (complete answer) are gains."""
    corpus = pq.read_table(folder / "corpus.parquet").to_pylist()
    queries = pq.read_table(folder / "queries.parquet").to_pylist()
    qrels: Qrels = {}
    for line in (folder / "qrels.trec").read_text().splitlines():
        query_id, _, doc_id, grade = line.split()
        qrels.setdefault(query_id, {})[doc_id] = max(0, int(grade))
    return measure(
        scorer,
        {str(row["query_id"]): row["text"] for row in queries},
        {str(row["doc_id"]): f"{row['title']} {row['text']}" for row in corpus},
        qrels,
    )


def main() -> None:
    """Measure a model, write its eval.json and print it."""
    parser = argparse.ArgumentParser(description="Measure a reranker.")
    parser.add_argument("model", type=Path)
    parser.add_argument("packages", type=Path)
    parser.add_argument("--cranfield", type=Path)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    scorer = Scorer.load(args.model, precision=args.precision)
    figures = {"held-out packages": packages(scorer, args.packages)}
    if args.cranfield:
        figures["cranfield"] = cranfield(scorer, args.cranfield)
    text = json.dumps(figures, indent=2)
    (args.model / "eval.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
