"""The host's work for a fast device: everything but the forward, which returns zeros at once.

    python -m bench.host
    python -m bench.host --tokenizer bge --mix abstracts --pairs 20000

Times are CPU of all threads, which other work on the machine disturbs less than the clock. What N
cores give is arithmetic, and marked as such.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.engine.shapes import SHAPES, TINY, make_checkpoint
from bench.run_shards import run_all_shards
from bench.workload import MIXES, build_pairs, read_corpus
from producer.jobs.check import plan_job
from rankmill.contract.job import JobSpec
from rankmill.output.output import Job
from rankmill.settings import settings
from worker import models
from worker.arrow_text import Texts
from worker.engine.batches.batch_cuts import packed_batches
from worker.engine.batches.batching import TokenBatch
from worker.engine.encoding.joining import JoinEncoder
from worker.engine.scorer import PairWindow, Scorer

_BUDGET = 131_072  # the largest of a GPU
_A_QUERY = 40
_CORES = (4, 16)
_BAR = 6_000
_HEAD = (
    "tokenized",
    "tokenizing",
    "joining",
    "batches",
    "scorer in all",
    "shard in all",
    "rows a core second, scorer",
    "shard",
    *(f"rows/s on {n} cores, by arithmetic" for n in _CORES),
)


def main() -> None:
    """Print a row for each way to tokenize, in turns on the same pairs."""
    options = _parse()
    torch.set_num_threads(1)
    corpus = read_corpus()
    pairs = build_pairs(corpus, options.mix, options.pairs)
    with TemporaryDirectory() as folder:
        shape = SHAPES[options.tokenizer]
        tiny = replace(
            TINY, model_type=shape.model_type, vocabulary=shape.vocabulary, max_length=512
        )
        make_checkpoint(tiny, Path(folder, "model"), corpus.sentences)
        job = _job(Path(folder), pairs)
        scorer = models.load(job.spec).scorer
        assert isinstance(scorer, Scorer)
        scorer._runner._forward = _Nothing()
        encoder = vars(scorer.encoder)["_encoder"]
        assert isinstance(encoder, JoinEncoder)
        windows, words = _windows(pairs), encoder._words
        ways = {"each text, by the library": None} | ({"each word once": words} if words else {})
        figures: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        run_all_shards(job)  # compiles, imports and fills caches
        for _ in range(options.turns):
            for way, encoder._words in ways.items():
                figures[way].append(_measure(scorer, encoder, windows, job))
        lengths = np.concatenate([encoder.encode(window).lengths for window in windows])
    print(
        f"{options.pairs:,} pairs of {lengths.mean():.0f} tokens, {options.tokenizer}'s kind of "
        f"tokenizer, windows of {settings().window_pairs:,}; CPU µs a pair\n"
    )
    print(f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}", sep="\n")
    for way, turns in figures.items():
        us = {name: median(turn[name] for turn in turns) for name in turns[0]}
        print(f"| {way} | {' | '.join(_cells(us))} |")
    print(f"\nThe bar is {_BAR:,} rows a core second.")


def _cells(us: dict[str, float]) -> list[str]:
    """Return the cells of a row.

    By arithmetic, N cores give N times a core's rows, but not more than one thread can do of what
    Python's lock or a table's lets one thread do at a time: all but the library's tokenizing.
    """
    alone = us["shard"] - us["parallel"]
    bounds = [min(n * 1e6 / us["shard"], 1e6 / alone) for n in _CORES]
    return [
        *(f"{us[name]:.1f}" for name in ("tokenizing", "joining", "batches", "scorer", "shard")),
        *(f"{1e6 / us[name]:,.0f}" for name in ("scorer", "shard")),
        *(f"{bound:,.0f}" for bound in bounds),
    ]


def _measure(
    scorer: Scorer, encoder: JoinEncoder, windows: list[PairWindow], job: Job
) -> dict[str, float]:
    """Return CPU µs a pair by stage; `parallel` is what runs on all cores at once."""
    n, us = sum(len(window.queries) for window in windows), {}
    with _timed_tokenizing(encoder) as tokenizing:
        encoded_s, encoded = _cpu_s(lambda: [encoder.encode(window) for window in windows])
    us["tokenizing"], us["joining"] = sum(tokenizing), encoded_s - sum(tokenizing)
    us["parallel"] = 0.0 if encoder._words else sum(tokenizing)
    us["batches"], _ = _cpu_s(
        lambda: [
            TokenBatch.of(window, pairs)
            for window in encoded
            for pairs in packed_batches(window, np.arange(len(window.lengths)), _BUDGET)
        ]
    )
    us["scorer"], _ = _cpu_s(lambda: list(scorer.score(windows)))
    us["shard"], _ = _cpu_s(lambda: run_all_shards(job))
    return {name: 1e6 * seconds / n for name, seconds in us.items()}


@contextmanager
def _timed_tokenizing(encoder: JoinEncoder) -> Iterator[list[float]]:
    """Collect the CPU seconds of the tokenizer's calls."""
    seconds: list[float] = []

    class Timed:
        def __init__(self, inner: Any, name: str) -> None:
            self._inner = inner
            setattr(self, name, self._call(getattr(inner, name)))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                spent, result = _cpu_s(lambda: method(*arguments, **options))
                seconds.append(spent)
                return result

            return call

    words, tokenizer = encoder._words, encoder._tokenizer
    parts: dict[str, Any] = {"_tokenizer": Timed(tokenizer, "encode_batch_fast")}
    if words is not None:
        parts = {"_words": Timed(words, "tokenize")}
    vars(encoder).update(parts)
    try:
        yield seconds
    finally:
        vars(encoder).update({"_words": words, "_tokenizer": tokenizer})


def _cpu_s(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


class _Nothing:
    """A forward that takes no time."""

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        return torch.zeros(batch.n_pairs)


def _windows(pairs: list[tuple[str, str]]) -> list[PairWindow]:
    """Return windows in Arrow's memory, as a worker reads them."""
    queries, documents = (
        pa.array([pair[side] for pair in pairs], pa.large_string()) for side in range(2)
    )
    size = settings().window_pairs
    return [
        PairWindow(
            Texts(pa.chunked_array([queries.slice(start, size)])),
            Texts(pa.chunked_array([documents.slice(start, size)])),
        )
        for start in range(0, len(pairs), size)
    ]


def _job(folder: Path, pairs: list[tuple[str, str]]) -> Job:
    """Write the pairs as an input and plan a job over them."""
    table = pa.table(
        {
            "query_id": [f"q{row // _A_QUERY}" for row in range(len(pairs))],
            "query": [query for query, _ in pairs],
            "doc_id": [f"d{row}" for row in range(len(pairs))],
            "document": [document for _, document in pairs],
        }
    )
    pq.write_table(table, folder / "in.parquet", row_group_size=65_536)
    return plan_job(
        JobSpec(
            input_uri=str(folder / "in.parquet"),
            output_uri=str(folder / "out"),
            model_id=str(folder / "model"),
            precision="fp32",
            max_batch_tokens=_BUDGET,
        )
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.host",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokenizer", choices=[*SHAPES], default="minilm")
    parser.add_argument("--mix", choices=MIXES, default="plain")
    parser.add_argument("--pairs", type=int, default=65_536)
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
