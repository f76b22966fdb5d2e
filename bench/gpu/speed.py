"""Time the engine and Sentence Transformers on one model and mix, at every batch size of the peer.

What is worth most comes first: the engine, its agreement with fp32, then the peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine.comparison import spread
from bench.engine.peak import matmul_peak_flops
from bench.engine.peers import TorchPeer
from bench.engine.shapes import Shape, useful_flops
from bench.engine.sides import Pairs, Peer
from bench.gpu.guard import failures_as_rows
from bench.gpu.rows import Budget, Rows
from worker.engine.agreement import Agreement, measure_agreement
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import PairWindow, Scorer

# As worker/shard/score.py and the setting `window_pairs` cut a shard.
FIRST_WINDOW_PAIRS, WINDOW_PAIRS = 256, 4096

BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
_SAMPLE_SHARE = 4
_ROUNDS = 3
_COMPARED_PAIRS = 2000
_EXACT_BATCH = 32

LoadPeer = Callable[[], Peer]


@dataclass(frozen=True)
class Subject:
    """What one call times.

    Attributes:
        shape: of the model, from which the FLOPs follow; None if they are not known.
        peak_size: of the matrices whose product is the peak.
    """

    folder: Path
    shape: Shape | None
    pairs: Pairs
    device: str
    precision: Precision
    batches: Sequence[int] = BATCHES
    peak_size: int | None = None


@dataclass
class _Best:
    """The fastest peer so far: a second of it scores `chars_per_s` of text."""

    chars_per_s: float = 0.0
    name: str = ""
    batch: int = 0
    load: LoadPeer | None = None


@dataclass
class _Found:
    """What the rows of a call have so far."""

    pairs_per_s: float = 0.0
    peak_share: float | None = None
    agreement: Agreement | None = None
    best: _Best = field(default_factory=_Best)


def peers_of(folder: Path, device: str, precision: Precision) -> dict[str, LoadPeer]:
    """Return how to load Sentence Transformers with each attention that is installed."""
    names = ["sdpa", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
    return {name: partial(TorchPeer, folder, device, precision, attention=name) for name in names}


def measure_speed(subject: Subject, peers: dict[str, LoadPeer], rows: Rows, budget: Budget) -> None:
    """Write the rows of one model and mix.

    Raises:
        Exception: the engine failed, or the device did.
    """
    found = _Found()
    scorer = _load(subject, rows, budget)
    logits = _time_engine(subject, scorer, found, rows, budget)
    _compare(subject, logits, found, rows, budget)
    for name, load in peers.items():
        _sweep(subject, name, load, found.best, rows, budget)
    times = _rounds(subject, scorer, found.best, rows, budget)
    overlap = found.agreement.top10_overlap if found.agreement else None
    rows.write(
        "result",
        pairs_per_s=found.pairs_per_s,
        peak_share=found.peak_share,
        top10_overlap=overlap,
        best_peer=found.best.name or None,
        best_batch=found.best.batch or None,
        times_best_peer=times,
    )


def windows(pairs: Pairs) -> Iterator[PairWindow]:
    """Yield the pairs in the windows that a worker cuts a shard into."""
    first = 0
    while first < len(pairs):
        last = first + (WINDOW_PAIRS if first else FIRST_WINDOW_PAIRS)
        some = pairs[first:last]
        yield PairWindow([query for query, _ in some], [document for _, document in some])
        first = last


def score(scorer: Scorer, pairs: Pairs) -> np.ndarray:
    """Return the engine's logits of the pairs, scored as a shard's."""
    return np.concatenate([scores.logits for scores in scorer.score(windows(pairs))])


def _load(subject: Subject, rows: Rows, budget: Budget) -> Scorer:
    budget.allows("loading the engine", 0)
    began = time.perf_counter()
    scorer = Scorer.load(subject.folder, device=subject.device, precision=subject.precision)
    rows.write(
        "loaded",
        seconds=time.perf_counter() - began,
        path=scorer.info.path,
        precision=scorer.info.precision,
        max_batch_tokens=scorer.max_batch_tokens,
    )
    return scorer


def _time_engine(
    subject: Subject, scorer: Scorer, found: _Found, rows: Rows, budget: Budget
) -> np.ndarray:
    """Write the engine's speed over all pairs, after a pass that warms it up."""
    pairs = subject.pairs
    budget.allows("the engine", 0)
    score(scorer, pairs[: max(1, len(pairs) // 8)])
    before, began = scorer.stats, time.perf_counter()
    logits = score(scorer, pairs)
    took, after = time.perf_counter() - began, scorer.stats
    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    lengths = scorer.encoder.encode(window).lengths
    found.pairs_per_s = len(pairs) / took
    peak = None
    if subject.shape is not None and scorer.info.precision != "fp8":  # which has no plain product
        peak = matmul_peak_flops(scorer.info.precision, subject.device, subject.peak_size)
        found.peak_share = useful_flops(subject.shape, lengths) / took / peak
    rows.write(
        "engine",
        pairs_per_s=found.pairs_per_s,
        n_pairs=len(pairs),
        mean_tokens=float(lengths.mean()),
        device_busy_share=(after.device_busy_s - before.device_busy_s) / took,
        waiting_for_tokens_share=(after.starved_s - before.starved_s) / took,
        matmul_peak_flops=peak,
        peak_share=found.peak_share,
    )
    return logits


def _compare(
    subject: Subject, logits: np.ndarray, found: _Found, rows: Rows, budget: Budget
) -> None:
    """Write how the engine ranks the first queries, against Sentence Transformers in fp32."""
    pairs = subject.pairs[:_COMPARED_PAIRS]
    # fp32 takes about ten times as long, without tensor cores.
    if not budget.allows("agreement with fp32", 10 * len(pairs) / found.pairs_per_s):
        return
    with failures_as_rows(rows, "agreement with fp32", subject.device):
        exact = TorchPeer(subject.folder, subject.device, "fp32").predict(pairs, _EXACT_BATCH)
        queries = [query for query, _ in pairs]
        found.agreement = measure_agreement(queries, logits[: len(pairs)], exact)
        rows.write("agreement", **vars(found.agreement), spread=float(exact.std()))


def _sweep(
    subject: Subject, name: str, load: LoadPeer, best: _Best, rows: Rows, budget: Budget
) -> None:
    """Write a peer's speed at each batch size, on batches as it would have in sorted pairs."""
    peer: Any = None
    expected_s = 0.0
    for batch in subject.batches:
        what = f"{name}, batch {batch}"
        if batch > len(subject.pairs) or not budget.allows(what, 3 * expected_s):
            continue
        with failures_as_rows(rows, what, subject.device):
            peer = peer or load()
            sample = _sample(subject.pairs, batch)
            peer.predict(sample, batch)
            began = time.perf_counter()
            peer.predict(sample, batch)
            expected_s = time.perf_counter() - began
            chars_per_s = _chars(sample) / expected_s
            rate = chars_per_s * len(subject.pairs) / _chars(subject.pairs)  # of all pairs
            rows.write("peer", peer=name, batch=batch, pairs_per_s=rate)
            if chars_per_s > best.chars_per_s:
                best.chars_per_s, best.name, best.batch, best.load = chars_per_s, name, batch, load


def _rounds(
    subject: Subject, scorer: Scorer, best: _Best, rows: Rows, budget: Budget
) -> float | None:
    """Time the engine and the best peer in turns, and return how many times faster the engine is.

    Where all pairs would take too long, some of all lengths are taken.
    """
    if best.load is None:
        return None
    pairs = subject.pairs
    round_s = 2 * _chars(pairs) / best.chars_per_s
    share = min(1.0, 0.9 * budget.left_s / (_ROUNDS * round_s))
    if not budget.allows("rounds in turns", _ROUNDS * round_s * share):
        return None
    pairs = spread(pairs, max(1, int(share * len(pairs) / 8)))
    peer, batch = best.load(), best.batch
    sides: dict[str, Callable[[], np.ndarray]] = {
        "engine": lambda: score(scorer, pairs),
        best.name: lambda: peer.predict(pairs, batch),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    with failures_as_rows(rows, "rounds in turns", subject.device):
        for number in range(_ROUNDS):
            for name, run in sides.items():
                began = time.perf_counter()
                run()
                took[name].append(time.perf_counter() - began)
                rate = len(pairs) / took[name][-1]
                rows.write("round", side=name, number=number, pairs_per_s=rate, n_pairs=len(pairs))
    ours, theirs = (list(seconds) for seconds in took.values())
    return float(np.median(theirs) / np.median(ours)) if theirs else None


def _sample(pairs: Pairs, batch: int) -> Pairs:
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    step = max(1, len(ordered) // max(len(pairs) // _SAMPLE_SHARE, batch))
    starts = range(0, len(ordered), batch * step)
    return [pair for start in starts for pair in ordered[start : start + batch]]


def _chars(pairs: Pairs) -> int:
    return sum(len(query) + len(document) for query, document in pairs)
