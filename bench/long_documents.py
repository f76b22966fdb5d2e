"""Measure how well documents longer than the model's input are ranked, cut or in passages.

    python -m bench.long_documents --data FOLDER --checkpoint FOLDER [--max-length 128]

FOLDER of --data is that of bench.cranfield. Each query's best documents by BM25 are scored with
pairs of --max-length tokens, in each mode of --long-docs. It prints a table for
docs/long-documents.md: nDCG@10, tokens, and the seconds that the forwards took. The difference is
to documents that are cut, with the p-value of a paired permutation test.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
from ir_measures import ScoredDoc, nDCG

from bench.precision import Candidates, read_candidates
from producer.quality.evaluate import sign_flip_test
from worker.engine.passages.limits import TextLimits
from worker.engine.passages.passage_scorer import PassageScorer
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow
from worker.models import use_cores

_WINDOW_PAIRS = 1000
_CUT = "truncate"


@dataclass(frozen=True)
class Way:
    """One way to score long documents."""

    name: str
    limits: TextLimits
    max_length: int | None


def main() -> None:
    """Measure each way of the command line, and print the table."""
    options = _parse()
    use_cores()
    candidates = read_candidates(options.data, options.queries, options.candidates)
    pairs = with_titles(candidates, options.data)
    if options.no_titles:
        pairs = PairWindow(pairs.queries, pairs.documents)
    short, overlap = options.max_length, options.max_length // 4
    ways = [
        Way(_CUT, TextLimits(), short),
        Way("max-passage", TextLimits("max-passage"), short),
        Way(
            f"max-passage, stride {overlap}",
            TextLimits("max-passage", passage_stride=overlap),
            short,
        ),
        Way("first-and-last", TextLimits("first-and-last"), short),
        Way("mean-top3", TextLimits("mean-top3"), short),
        Way("truncate", TextLimits(), None),
    ]
    print("| `--long-docs` | `--max-length` | nDCG@10 | difference | p | tokens | forwards |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    loaded = Scorer.load(options.checkpoint, precision=options.precision)
    base = None
    for way in ways:
        scorer = PassageScorer(loaded.with_settings(max_length=way.max_length), way.limits)
        logits, n_tokens = scored(scorer, pairs)
        found = by_query(candidates, logits)
        base = found if base is None else base
        difference = found - base
        p = sign_flip_test(difference[:, None])[0] if difference.any() else 1.0
        length, busy_s = scorer.info.max_length, scorer.stats.device_busy_s
        print(
            f"| {way.name} | {length} | {found.mean():.4f} | {difference.mean():+.4f} | {p:.3f} | "
            f"{n_tokens:,} | {busy_s:.0f} s |",
            flush=True,
        )


def with_titles(candidates: Candidates, folder: Path) -> PairWindow:
    """Return the pairs, with the lengths of the titles that their documents begin with."""
    corpus = pq.read_table(folder / "corpus.parquet", columns=["doc_id", "title"]).to_pylist()
    lengths = {row["doc_id"]: len(row["title"].strip()) for row in corpus}
    queries, documents = zip(*candidates.pairs, strict=True)
    titles = [lengths[doc_id] for doc_id in candidates.document_ids]
    return PairWindow(queries, documents, title_chars=titles)


def scored(scorer: PassageScorer, pairs: PairWindow) -> tuple[np.ndarray, int]:
    """Return the logits of all pairs, float32 (n,), and the tokens that the model got."""
    starts = range(0, len(pairs.queries), _WINDOW_PAIRS)
    parts = list(scorer.score(pairs.between(at, at + _WINDOW_PAIRS) for at in starts))
    n_tokens = sum(int(part.n_tokens.sum()) for part in parts)
    return np.concatenate([part.logits for part in parts]), n_tokens


def by_query(candidates: Candidates, logits: np.ndarray) -> np.ndarray:
    """Return nDCG@10 of each judged query, float64 (queries,), in a fixed order."""
    rows = zip(candidates.query_ids, candidates.document_ids, logits.tolist(), strict=True)
    run = [ScoredDoc(query, document, score) for query, document, score in rows]
    values = ir_measures.iter_calc([nDCG @ 10], candidates.judgments, run)
    found = {value.query_id: float(value.value) for value in values}
    return np.array([found[query] for query in sorted(found)])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.long_documents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a pair (128)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--queries", type=int, default=225, help="the first ones (default all)")
    parser.add_argument("--no-titles", action="store_true", help="do not repeat the titles")
    parser.add_argument("--candidates", type=int, default=100, help="a query (default 100)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
