"""Measure how well each precision of a real model ranks Cranfield, against fp32.

    python -m bench.precision --data FOLDER --checkpoint FOLDER [--precision bf16 int8]

FOLDER of --data is that of bench.cranfield. Each query's best documents by BM25 are scored in fp32
and in each precision. It prints a table for docs/precision.md: Kendall's tau-b and top-10 overlap
within queries, nDCG@10 and its difference, the largest logit difference. fp32 itself is compared
with `CrossEncoder.predict` on the first pairs. --logits keeps the logits of fp32 for the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
from ir_measures import Qrel, ScoredDoc, nDCG

from bench.engine.peers import TorchPeer
from bench.engine.report import machine
from bench.engine.sides import engine_side
from examples.package_search import bm25_candidates
from worker.engine.agreement import Agreement, measure_agreement
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer
from worker.models import use_cores

_PRECISIONS: tuple[Precision, ...] = ("bf16", "int8")
_MEASURE = nDCG @ 10
_REFERENCE_BATCH = 8


@dataclass(frozen=True)
class Candidates:
    """Pairs to score, grouped by query, with the judgments of their queries."""

    query_ids: list[str]
    document_ids: list[str]
    pairs: list[tuple[str, str]]
    judgments: list[Qrel]

    def ndcg(self, logits: np.ndarray) -> float:
        """Return the mean nDCG@10 of the pairs ranked by these logits."""
        rows = zip(self.query_ids, self.document_ids, logits.tolist(), strict=True)
        found = [ScoredDoc(query, document, score) for query, document, score in rows]
        return float(ir_measures.calc_aggregate([_MEASURE], self.judgments, found)[_MEASURE])


@dataclass(frozen=True)
class Row:
    """One precision against fp32."""

    precision: str
    agreement: Agreement
    ndcg: float
    ndcg_difference: float


def main() -> None:
    """Measure the precisions of the command line, and print the table."""
    options = _parse()
    use_cores()
    candidates = read_candidates(options.data, options.queries, options.candidates)
    exact = _exact_logits(options, candidates)
    queries = [query for query, _ in candidates.pairs]
    base = candidates.ndcg(exact)
    rows = []
    for precision in options.precision:
        logits = engine_side(Scorer.load(options.checkpoint, precision=precision)).score(
            candidates.pairs
        )
        agreement = measure_agreement(queries, logits, exact)
        found = candidates.ndcg(logits)
        rows.append(Row(precision, agreement, found, found - base))
    print(table(rows, base))
    print(f"\n{_against_cross_encoder(options, candidates, exact)}")
    if options.results:
        facts = {
            "pairs": len(exact),
            "queries": len(set(queries)),
            "ndcg_fp32": base,
            "machine": machine(),
            "results": [asdict(row) for row in rows],
        }
        options.results.write_text(json.dumps(facts, indent=2) + "\n")


def read_candidates(folder: Path, n_queries: int, n_candidates: int) -> Candidates:
    """Return the first queries with BM25's best documents; empty documents are left out."""
    corpus = [
        row for row in pq.read_table(folder / "corpus.parquet").to_pylist() if row["text"].strip()
    ]
    queries = pq.read_table(folder / "queries.parquet").to_pylist()[:n_queries]
    texts = [f"{row['title']} {row['text']}" for row in corpus]
    found, _ = bm25_candidates(texts, [row["text"] for row in queries], n_candidates)
    rows = [
        (query, document)
        for query, documents in zip(queries, found, strict=True)
        for document in documents
    ]
    known = {query["query_id"] for query in queries}
    judgments = ir_measures.read_trec_qrels(str(folder / "qrels.trec"))
    return Candidates(
        [query["query_id"] for query, _ in rows],
        [corpus[document]["doc_id"] for _, document in rows],
        [(query["text"], texts[document]) for query, document in rows],
        [judgment for judgment in judgments if judgment.query_id in known],
    )


def table(rows: list[Row], ndcg_fp32: float) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| precision | Kendall's tau | top-10 overlap | nDCG@10 | difference | "
        "largest logit difference |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| fp32 | | | {ndcg_fp32:.4f} | | |",
    ]
    for row in rows:
        measured = row.agreement
        lines.append(
            f"| {row.precision} | {measured.kendall_tau:.4f} | {measured.top10_overlap:.3f} | "
            f"{row.ndcg:.4f} | {row.ndcg_difference:+.4f} | {measured.max_difference:.2g} |"
        )
    return "\n".join(lines)


def _exact_logits(options: argparse.Namespace, candidates: Candidates) -> np.ndarray:
    """Return the engine's logits in fp32, from the file of an earlier run over the same pairs."""
    digest = hashlib.sha256(repr(candidates.pairs).encode()).hexdigest()
    if options.logits and options.logits.exists():
        kept = np.load(options.logits)
        if str(kept["pairs"]) == digest:
            logits: np.ndarray = kept["logits"]
            return logits
    logits = engine_side(Scorer.load(options.checkpoint, precision="fp32")).score(candidates.pairs)
    if options.logits:
        np.savez(options.logits, logits=logits, pairs=digest)
    return logits


def _against_cross_encoder(
    options: argparse.Namespace, candidates: Candidates, exact: np.ndarray
) -> str:
    some = slice(0, len(exact), max(1, len(exact) // options.reference_pairs))
    expected = TorchPeer(options.checkpoint, "cpu", "fp32").predict(
        candidates.pairs[some], _REFERENCE_BATCH
    )
    difference = np.abs(exact[some] - expected)
    relative = difference / np.maximum(1, np.abs(expected))
    return (
        f"fp32 against CrossEncoder.predict on {len(expected)} pairs: the largest difference is "
        f"{difference.max():.1e}, relative to logits beyond 1 {relative.max():.1e}."
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--precision", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    parser.add_argument("--queries", type=int, default=225, help="the first ones (default all)")
    parser.add_argument("--candidates", type=int, default=100, help="a query (default 100)")
    parser.add_argument("--reference-pairs", type=int, default=150, help="scored by CrossEncoder")
    parser.add_argument("--logits", type=Path, metavar="FILE", help=".npz for fp32, made or read")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
