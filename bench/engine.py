"""The engine against CrossEncoder.predict on CPU, end to end from text to logits.

    python -m bench.engine --quick
    python -m bench.engine --model bge --precision bf16 --mix long --json

The sides take turns in one run. Ratios are of time on the clock, which needs a quiet machine, and
of core-seconds, in which an idle core costs nothing. Absolute rates depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np

from bench.engine_report import Comparison, as_json, table
from bench.engine_shapes import SHAPES, make_checkpoint, useful_flops
from bench.engine_sides import Pairs, Peer, engine_side, matmul_peak_flops, run_in_turns
from bench.workload import MIXES, Mix, build_pairs, read_corpus
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer, ScorerStats
from worker.models import use_cores

_BATCHES = [4, 8, 16, 32, 64, 128]
_DEFAULT_BATCH = 32

# Pairs the peer's batch size is chosen on.
_SAMPLE_CPU, _SAMPLE_CUDA = 128, 4096
_PAIRS = {"minilm": 2000, "bge": 120, "gte": 300}
_QUICK_SHARE = 0.1


def main() -> None:
    """Compare on the models, mixes and precisions of the command line."""
    options = _parse()
    use_cores()
    corpus = read_corpus()
    rows = []
    for name in options.model:
        n_pairs = int((options.pairs or _PAIRS[name]) * (_QUICK_SHARE if options.quick else 1))
        with TemporaryDirectory() as folder:
            make_checkpoint(name, Path(folder), corpus.sentences)
            for mix in options.mix:
                pairs = build_pairs(corpus, mix, n_pairs * options.rounds)
                for precision in options.precision:
                    print(f"{name} {mix} {precision}: {n_pairs} pairs", file=sys.stderr)
                    row = compare(
                        name, Path(folder), mix, pairs, precision, "cpu", options.rounds, _BATCHES
                    )
                    rows.append(row)
    print(as_json(rows, text=corpus.source) if options.json else table(rows))


def compare(
    name: str,
    folder: Path,
    mix: Mix,
    pairs: Pairs,
    precision: Precision,
    device: str,
    rounds: int,
    batches: list[int],
) -> Comparison:
    """Time the engine, the tuned peer and the peer at its defaults, in turns on the same pairs.

    Args:
        name: of the shape, a key of `SHAPES`.
        folder: the checkpoint.
        mix: the name of the mix that made `pairs`.
        pairs: of all rounds together.
        precision: of the engine and the tuned peer; the default peer has fp32.
        device: cpu or cuda.
        rounds: times that each side takes its turn.
        batches: sizes to choose the tuned peer's from.
    """
    scorer = Scorer.load(folder, device=device, precision=precision)
    peer = Peer(folder, device, precision)
    sample = pairs[:: max(1, len(pairs) // (_SAMPLE_CPU if device == "cpu" else _SAMPLE_CUDA))]
    batch = peer.best_batch(sample, batches, device)
    defaults = peer if precision == "fp32" else Peer(folder, device, "fp32")
    sides = [
        engine_side(scorer),
        peer.side("tuned", batch),
        defaults.side("default", _DEFAULT_BATCH),
    ]
    before = scorer.stats
    logits = run_in_turns(sides, pairs, rounds, device)
    lengths = _token_counts(scorer, pairs)
    engine, tuned, default = (side.median for side in sides)
    rate = useful_flops(SHAPES[name], lengths) / rounds / engine.core_s
    return Comparison(
        model=name,
        mix=mix,
        precision=precision,
        n_pairs=len(pairs) // rounds,
        mean_tokens=float(lengths.mean()),
        engine_s=engine.wall_s,
        peer_s=tuned.wall_s,
        peer_batch=batch,
        peer_default_s=default.wall_s,
        core_times_tuned=tuned.core_s / engine.core_s,
        core_times_default=default.core_s / engine.core_s,
        peak_share=rate / matmul_peak_flops(precision, device),
        device_busy_share=_busy_share(before, scorer.stats),
        max_difference=float(np.abs(logits[0] - logits[1]).max()),
    )


def _token_counts(scorer: Scorer, pairs: Pairs) -> np.ndarray:
    """Return the tokens of each distinct pair; a repeated one is useful work only once."""
    from worker.engine.scorer import PairWindow

    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    return scorer._encoder.encode(window).lengths


def _busy_share(before: ScorerStats, after: ScorerStats) -> float:
    return (after.device_busy_s - before.device_busy_s) / (after.wall_s - before.wall_s)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=["plain"])
    parser.add_argument(
        "--precision", nargs="+", choices=get_args(Precision)[1:3], default=["bf16", "fp32"]
    )
    parser.add_argument("--pairs", type=int, help="pairs a model and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
