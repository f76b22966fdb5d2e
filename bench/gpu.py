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

import torch

from bench.engine.comparison import Comparison, Workload, compare
from bench.engine.peers import TorchPeer
from bench.engine.report import as_json, table
from bench.engine.shapes import SHAPES, make_checkpoint
from bench.workload import Mix, build_pairs, read_corpus
from worker.engine.scorer import Scorer
from worker.models import use_cores

_RESULTS = Path(__file__).parent / "results"
_DEVICE = "cuda"
_BATCHES = [32, 64, 128, 256]

# Chosen so that the peer needs some ten seconds a round on an H100.
_PAIRS = {"minilm": 40_000, "minilm-l12": 20_000, "bge": 12_000, "gte": 12_000}
_MODELS = ("minilm", "bge", "gte")
_MIXES: tuple[Mix, ...] = ("plain", "duplicates", "long", "tiny")
_OTHER_SHARE, _QUICK_SHARE = 0.1, 0.05
_FEWEST_PAIRS = 200


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
    for name in options.model:
        with TemporaryDirectory() as work:
            folder = make_checkpoint(SHAPES[name], Path(work), corpus.sentences)
            workloads = _workloads(folder, int(_PAIRS[name] * share))
            scorer = Scorer.load(folder, device=_DEVICE, precision="bf16")
            peer = TorchPeer(folder, _DEVICE, "bf16")
            for workload in workloads:
                print(f"{name} {workload.mix}: {len(workload.pairs)} pairs", file=sys.stderr)
                row = compare(
                    SHAPES[name],
                    scorer,
                    [peer],
                    workload,
                    model=name,
                    precision="bf16",
                    batches=_BATCHES,
                    seconds=0,
                )
                rows.append(row)
        del scorer, peer
        torch.cuda.empty_cache()
    print(table(rows))
    _write(as_json(rows, text=corpus.source))


def _workloads(folder: Path, n_pairs: int) -> list[Workload]:
    """Return the pairs of each mix with their logits in fp32."""
    corpus, reference = read_corpus(), TorchPeer(folder, _DEVICE, "fp32")
    workloads = []
    for mix in _MIXES:
        n = max(_FEWEST_PAIRS, int(n_pairs * (1 if mix == "plain" else _OTHER_SHARE)))
        pairs = build_pairs(corpus, mix, n)
        workloads.append(Workload(mix, pairs, reference.predict(pairs, _BATCHES[0])))
    return workloads


def _write(report: str) -> None:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"gpu-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(report + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=list(SHAPES), default=list(_MODELS))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the pairs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
