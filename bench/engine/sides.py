"""The sides of a comparison, from text to logits, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Protocol

import numpy as np

from worker.engine.scorer import PairWindow, Scorer

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], np.ndarray]

_WINDOW_PAIRS = 8192
_FEWEST_ROUNDS = 3


class Took(NamedTuple):
    """Seconds on the clock, and of all cores together; on CUDA both are the clock's."""

    wall_s: float
    core_s: float


@dataclass
class Side:
    """One contestant: its name, its scoring function and the times of its rounds.

    Attributes:
        batch: pairs of a batch; None for the engine, which fills its batches by tokens.
    """

    name: str
    score: Score
    batch: int | None = None
    rounds: list[Took] = field(default_factory=list)

    @property
    def median(self) -> Took:
        """The medians over the rounds."""
        return Took(*(median(seconds) for seconds in zip(*self.rounds, strict=True)))


class Peer(Protocol):
    """Another library with a model loaded."""

    name: str

    def predict(self, pairs: Pairs, batch: int) -> np.ndarray:
        """Return the logits, in the order of the pairs."""
        ...


def engine_side(scorer: Scorer) -> Side:
    """Return the engine as a contestant."""

    def score(pairs: Pairs) -> np.ndarray:
        parts = (pairs[i : i + _WINDOW_PAIRS] for i in range(0, len(pairs), _WINDOW_PAIRS))
        windows = (PairWindow([q for q, _ in part], [d for _, d in part]) for part in parts)
        return np.concatenate([scores.logits for scores in scorer.score(windows)])

    return Side("rankmill", score)


def tuned(peer: Peer, pairs: Pairs, batches: list[int], device: str, n_sample: int) -> Side:
    """Return a peer as a contestant with its fastest batch size.

    A size is timed on batches that it would have in sorted pairs, after a pass that compiles what
    their shapes need.
    """
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))

    def cost(batch: int) -> float:
        step = max(1, len(ordered) // max(n_sample, batch))
        starts = range(0, len(ordered), batch * step)
        sample = [pair for start in starts for pair in ordered[start : start + batch]]
        peer.predict(sample, batch)
        took, _ = timed(lambda some: peer.predict(some, batch), sample, device)
        return took.wall_s / sum(len(query) + len(document) for query, document in sample)

    best = cheapest(batches, cost)
    return Side(peer.name, lambda pairs: peer.predict(pairs, best), best)


def cheapest(sizes: list[int], cost: Callable[[int], float]) -> int:
    """Return the size of the least cost, trying upwards until two in a row are no better."""
    costs: dict[int, float] = {}
    for size in sizes:
        costs[size] = cost(size)
        if min(costs.values()) < min(list(costs.values())[-2:]):
            break
    return min(costs, key=lambda size: costs[size])


def run_in_turns(sides: list[Side], pairs: Pairs, seconds: float, device: str) -> list[np.ndarray]:
    """Let each side score all pairs once, then time A B C A B C for the seconds or three rounds.

    The pass before lets every side compile and remember what the shapes of its batches need, as
    it has done after the first minutes of a long job.

    Returns:
        Each side's logits.
    """
    logits = [side.score(pairs) for side in sides]
    ends = time.perf_counter() + seconds
    while len(sides[0].rounds) < _FEWEST_ROUNDS or time.perf_counter() < ends:
        for side in sides:
            side.rounds.append(timed(side.score, pairs, device)[0])
    return logits


def timed(score: Score, pairs: Pairs, device: str) -> tuple[Took, np.ndarray]:
    """Score the pairs and return the time and the logits."""
    wall, cores = time.perf_counter(), time.process_time()
    logits = score(pairs)
    wall_s, core_s = time.perf_counter() - wall, time.process_time() - cores
    return Took(wall_s, core_s if device == "cpu" else wall_s), logits
