"""The engine against CrossEncoder.predict on one CUDA device; without one it skips with a line.

    python -m bench.gpu            # under 8 minutes on one H200
    python -m bench.gpu --quick

Needs torch, transformers, sentence-transformers, tokenizers and numpy. Writes its figures to
bench/results/, if it has any.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from bench.engine import compare
from bench.engine_report import Comparison, as_json, table
from bench.engine_shapes import SHAPES, make_checkpoint
from bench.engine_sides import Pairs, engine_side
from bench.workload import Corpus, Mix, build_pairs, read_corpus
from worker.engine.scorer import Scorer
from worker.models import use_cores

_RESULTS = Path(__file__).parent / "results"
_DEVICE = "cuda"
_BATCHES = [32, 64, 128, 256]
_ROUNDS = 3

# Chosen so that the peer needs some ten seconds a round on an H100.
_PAIRS = {"minilm": 40_000, "bge": 12_000, "gte": 12_000}
_OTHER_MIXES: tuple[Mix, ...] = ("duplicates", "long", "tiny")
_OTHER_SHARE, _QUICK_SHARE = 0.1, 0.05
_PARITY_PAIRS = 500


def main() -> None:
    """Compare on all models and mixes, and write the results."""
    options = _parse()
    if not torch.cuda.is_available():
        print("bench.gpu: skipped, torch sees no CUDA device")
        return
    use_cores()
    corpus = read_corpus()
    share = _QUICK_SHARE if options.quick else 1
    rows: list[Comparison] = []
    parity: dict[str, float] = {}
    for name in options.model:
        with TemporaryDirectory() as folder:
            make_checkpoint(name, Path(folder), corpus.sentences)
            rows += _compare_mixes(name, Path(folder), corpus, share)
            plain = build_pairs(corpus, "plain", _PARITY_PAIRS)
            parity[name] = _difference_to_fp32(Path(folder), plain)
        torch.cuda.empty_cache()
    print(table(rows))
    print(f"largest bf16 logit difference to fp32 on this GPU: {parity}")
    _write(as_json(rows, text=corpus.source, bf16_to_fp32=parity))


def _compare_mixes(name: str, folder: Path, corpus: Corpus, share: float) -> list[Comparison]:
    rows = []
    for mix in ("plain", *_OTHER_MIXES):
        n_pairs = int(_PAIRS[name] * share * (1 if mix == "plain" else _OTHER_SHARE))
        rounds = _ROUNDS if mix == "plain" else 1
        pairs = build_pairs(corpus, mix, max(200, n_pairs) * rounds)
        print(f"{name} {mix}: {len(pairs)} pairs", file=sys.stderr)
        rows.append(compare(name, folder, mix, pairs, "bf16", _DEVICE, rounds, _BATCHES))
    return rows


def _difference_to_fp32(folder: Path, pairs: Pairs) -> float:
    logits = [
        engine_side(Scorer.load(folder, device=_DEVICE, precision=precision)).score(pairs)
        for precision in ("bf16", "fp32")
    ]
    return float(np.abs(logits[0] - logits[1]).max())


def _write(report: str) -> None:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"gpu-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(report + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the pairs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
