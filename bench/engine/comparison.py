"""One comparison: the engine and its peers in one precision, on the same pairs, in turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.engine.peak import matmul_peak_flops
from bench.engine.shapes import Shape, useful_flops
from bench.engine.sides import Pairs, Peer, Side, engine_side, run_in_turns, timed, tuned
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

_BLOCK = 8

# A batch size is chosen on one of so many pairs, and on a block at least.
_SAMPLE_SHARE = 4

_DEFAULT_BATCH = 32

# Fewer words than three batches of the engine are unlike a job: its batches would not be full.
_FEWEST_WORDS = 4_600


@dataclass(frozen=True)
class Result:
    """The figures of one side; seconds are medians over its rounds.

    Attributes:
        batch: pairs of a batch; None for the engine.
        max_difference: the largest logit difference to `CrossEncoder.predict` in fp32.
    """

    name: str
    batch: int | None
    wall_s: float
    core_s: float
    max_difference: float


@dataclass(frozen=True)
class Comparison:
    """The engine against its peers on one model, mix and precision.

    Attributes:
        peers: torch first, at its best batch size, as each of the others.
        peak_flops: a core-second, of the best product in the same dtype.
        peak_share: the FLOPs that the pairs need, as a share of what the peak does in that time.
        device_busy_share: of the engine's own wall time.
    """

    model: str
    mix: str
    precision: str
    n_pairs: int
    mean_tokens: float
    engine: Result
    peers: list[Result]
    peak_flops: float
    peak_share: float
    device_busy_share: float

    @property
    def best_peer(self) -> Result:
        """The fastest peer; torch in bf16 counts as a peer of int8, since it has no int8."""
        return min(self.peers, key=lambda peer: peer.wall_s)

    def times(self, peer: Result) -> float:
        """Return a peer's time on the clock over the engine's."""
        return peer.wall_s / self.engine.wall_s

    @property
    def core_times_best(self) -> float:
        """The same for the peer of the least CPU time, which a busy machine disturbs less."""
        return min(peer.core_s for peer in self.peers) / self.engine.core_s


@dataclass(frozen=True)
class Workload:
    """The pairs of one mix, and the logits that all sides should give.

    Attributes:
        exact: of `CrossEncoder.predict` in fp32, in the order of the pairs.
    """

    mix: str
    pairs: Pairs
    exact: np.ndarray

    @classmethod
    def fitting(cls, mix: str, pairs: Pairs, reference: Peer, seconds: float) -> Workload:
        """Return some of the pairs, as many as the reference scores in the seconds or more.

        Args:
            mix: the name of the mix.
            pairs: all that may be used.
            reference: torch in fp32.
            seconds: wanted of one round of the reference.
        """
        probe = spread(pairs, 1)
        reference.predict(probe, _DEFAULT_BATCH)
        took, _ = timed(lambda some: reference.predict(some, _DEFAULT_BATCH), probe, "cpu")
        n_blocks = max(1, int(seconds / took.wall_s))
        kept = spread(pairs, n_blocks)
        while len(kept) < len(pairs) and _n_words(kept) < _FEWEST_WORDS:
            n_blocks += 1
            kept = spread(pairs, n_blocks)
        return cls(mix, kept, reference.predict(kept, _DEFAULT_BATCH))


def _n_words(pairs: Pairs) -> int:
    return sum(len(text.split()) for pair in pairs for text in pair)


def spread(pairs: Pairs, n_blocks: int) -> Pairs:
    """Return blocks of pairs of about one length, from all over the distribution of lengths.

    So few pairs are padded as little as the same pairs are among the thousands of a real job.
    """
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if n_blocks * _BLOCK >= len(ordered):
        return pairs
    step = len(ordered) / n_blocks
    starts = [int((block + 0.5) * step - _BLOCK / 2) for block in range(n_blocks)]
    return [pair for start in starts for pair in ordered[start : start + _BLOCK]]


def compare(
    shape: Shape,
    scorer: Scorer,
    peers: list[Peer],
    workload: Workload,
    *,
    model: str,
    precision: Precision,
    batches: list[int],
    seconds: float,
) -> Comparison:
    """Time the engine and each peer at its best batch size, in turns on the same pairs.

    Args:
        shape: of the model, from which the FLOPs follow.
        scorer: the engine.
        peers: torch first.
        workload: the pairs.
        model: its name in the report.
        precision: of the engine.
        batches: sizes to choose the peers' from, ascending.
        seconds: for all timed rounds together; at least three rounds are run.
    """
    device, pairs = scorer.info.device, workload.pairs
    n_sample = max(_BLOCK, len(pairs) // _SAMPLE_SHARE)
    fitting = [batch for batch in batches if batch <= len(pairs)]
    contestants = [tuned(peer, pairs, fitting, device, n_sample) for peer in peers]
    sides = [engine_side(scorer), *contestants]
    before = scorer.stats
    logits = run_in_turns(sides, pairs, seconds, device)
    engine, *others = (
        _result(side, found, workload.exact) for side, found in zip(sides, logits, strict=True)
    )
    after, lengths = scorer.stats, _token_counts(scorer, pairs)
    peak = matmul_peak_flops(precision, device)
    busy_s = after.device_busy_s - before.device_busy_s
    return Comparison(
        model=model,
        mix=workload.mix,
        precision=precision,
        n_pairs=len(pairs),
        mean_tokens=float(lengths.mean()),
        engine=engine,
        peers=others,
        peak_flops=peak,
        peak_share=useful_flops(shape, lengths) / engine.core_s / peak,
        device_busy_share=busy_s / (after.wall_s - before.wall_s),
    )


def _result(side: Side, logits: np.ndarray, exact: np.ndarray) -> Result:
    if not np.isfinite(logits).all():
        raise ValueError(f"{side.name}: some logits are not finite, so its time means nothing")
    took = side.median
    difference = float(np.abs(logits - exact).max())
    return Result(side.name, side.batch, took.wall_s, took.core_s, difference)


def _token_counts(scorer: Scorer, pairs: Pairs) -> np.ndarray:
    """Return the tokens of each distinct pair; a repeated one is useful work only once."""
    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    return scorer._encoder.encode(window).lengths
