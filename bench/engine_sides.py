"""The sides of a comparison, from text to logits, and how they are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from worker.engine.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], np.ndarray]

_WINDOW_PAIRS = 8192
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Side:
    """One contestant: its name, how it scores, and the seconds its rounds took."""

    name: str
    score: Score
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return median(self.seconds)


def engine_side(scorer: Scorer) -> Side:
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
        """The fastest batch size on a sample."""
        self.side("", batches[0]).score(pairs[:32])
        seconds = {batch: timed(self.side("", batch).score, pairs, device)[0] for batch in batches}
        return min(seconds, key=lambda batch: seconds[batch])


def run_in_turns(sides: list[Side], pairs: Pairs, rounds: int, device: str) -> list[np.ndarray]:
    """Warm each side up, then A B C A B C; returns each side's logits."""
    for side in sides:
        side.score(pairs[: 64 if device == "cpu" else len(pairs)])
    logits: list[np.ndarray] = []
    for _ in range(rounds):
        logits = []
        for side in sides:
            seconds, scores = timed(side.score, pairs, device)
            side.seconds.append(seconds)
            logits.append(scores)
    return logits


def timed(score: Score, pairs: Pairs, device: str) -> tuple[float, np.ndarray]:
    """Seconds and logits: core-seconds on CPU, where others may share the machine, else wall."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    logits = score(pairs)
    return clock() - started, logits


def matmul_peak_flops(precision: Precision, device: str) -> float:
    """Best rate of a large square product in the precision's own dtype."""
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
