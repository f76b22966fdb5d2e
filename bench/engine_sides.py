"""The sides of a comparison, from text to logits, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], np.ndarray]

_WINDOW_PAIRS = 8192
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Took(NamedTuple):
    """Seconds on the clock, and of all cores together; on CUDA both are the clock's."""

    wall_s: float
    core_s: float


@dataclass
class Side:
    """One contestant: its name, its scoring function and the times of its rounds."""

    name: str
    score: Score
    rounds: list[Took] = field(default_factory=list)

    @property
    def median(self) -> Took:
        """The medians over the rounds."""
        return Took(*(median(seconds) for seconds in zip(*self.rounds, strict=True)))


def engine_side(scorer: Scorer) -> Side:
    """Return the engine as a contestant."""

    def score(pairs: Pairs) -> np.ndarray:
        parts = (pairs[i : i + _WINDOW_PAIRS] for i in range(0, len(pairs), _WINDOW_PAIRS))
        windows = (PairWindow([q for q, _ in part], [d for _, d in part]) for part in parts)
        return np.concatenate([scores.logits for scores in scorer.score(windows)])

    return Side("rankmill", score)


class Peer:
    """CrossEncoder with SDPA at one precision; sides of it differ in batch size."""

    def __init__(self, folder: Path, device: str, precision: Precision) -> None:
        from sentence_transformers import CrossEncoder

        self._model: Any = CrossEncoder(
            str(folder),
            device=device,
            model_kwargs={"dtype": _DTYPES[precision], "attn_implementation": "sdpa"},
        )

    def side(self, name: str, batch: int) -> Side:
        """Return the peer at a batch size as a contestant."""

        def score(pairs: Pairs) -> np.ndarray:
            logits: np.ndarray = self._model.predict(
                pairs,
                batch_size=batch,
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
            return logits

        return Side(name, score)

    def best_batch(self, pairs: Pairs, batches: list[int], device: str) -> int:
        """Return the fastest batch size on a sample."""
        self.side("", batches[0]).score(pairs[:32])
        took = {batch: timed(self.side("", batch).score, pairs, device)[0] for batch in batches}
        return min(took, key=lambda batch: took[batch].wall_s)


def run_in_turns(sides: list[Side], pairs: Pairs, rounds: int, device: str) -> list[np.ndarray]:
    """Warm each side up, then run A B C A B C, each round on its own pairs.

    A side that compiles or remembers something for the shapes of its batches would look better on
    known pairs than it does in real work.

    Returns:
        Each side's logits of all pairs.
    """
    size = -(-len(pairs) // rounds)
    for side in sides:
        side.score(pairs[: 64 if device == "cpu" else size])
    logits: list[list[np.ndarray]] = [[] for _ in sides]
    for start in range(0, len(pairs), size):
        for side, found in zip(sides, logits, strict=True):
            took, scores = timed(side.score, pairs[start : start + size], device)
            side.rounds.append(took)
            found.append(scores)
    return [np.concatenate(found) for found in logits]


def timed(score: Score, pairs: Pairs, device: str) -> tuple[Took, np.ndarray]:
    """Score the pairs and return the time and the logits."""
    wall, cores = time.perf_counter(), time.process_time()
    logits = score(pairs)
    wall_s, core_s = time.perf_counter() - wall, time.process_time() - cores
    return Took(wall_s, core_s if device == "cpu" else wall_s), logits


def matmul_peak_flops(precision: Precision, device: str) -> float:
    """Return the best rate of a large square product in the precision's own dtype, in FLOP/s."""
    size, tries = (2048, 5) if device == "cpu" else (8192, 30)
    left = torch.randn(size, size, device=device).to(_DTYPES[precision])
    best = min(_product_seconds(left, device) for _ in range(tries))
    return 2 * size**3 / best


def _product_seconds(left: torch.Tensor, device: str) -> float:
    if device == "cpu":
        started = time.process_time()
        torch.mm(left, left)
        return time.process_time() - started
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    start.record()
    torch.mm(left, left)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
