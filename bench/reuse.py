"""A second night in which few pairs have changed, with and without the first night's scores.

    python -m bench.reuse [--rows N] [--rate PAIRS_PER_S] [--changed SHARE] [--json]

One worker's scorer sleeps as a device of that rate would. Between the nights a share of the
documents changes. Queries and candidates come in another order; ids and shards are new. Wall time
is from submitting to the end. The two results must be the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.system import cluster
from bench.workload import read_corpus
from producer.jobs.submit import submit
from rankmill.contract.results import Manifest
from rankmill.output.output import Output

_ROWS, _RATE, _CHANGED = 1_000_000, 2000.0, 0.05
_CANDIDATES = 100
_WORDS = (10, 90)  # to a document: about 300 bytes
_FILE_ROWS = 250_000
_GOAL = 12


def main() -> None:
    """Compare the two nights and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--rate", type=float, default=_RATE, help="pairs a second of the device")
    parser.add_argument("--changed", type=float, default=_CHANGED)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    row = compared(options.rows, options.rate, options.changed)
    if options.json:
        print(json.dumps(row, indent=2))
        return
    for name, value in row.items():
        is_plain = isinstance(value, bool | str)
        print(f"{name:<36}  {value if is_plain else format(value, ',')}")


def compared(n_rows: int, rate: float, changed: float) -> dict[str, Any]:
    """Run both nights and return the figures by name."""
    with cluster(1) as folder:
        _generate(folder / "one", n_rows, 0.0)
        _generate(folder / "two", n_rows, changed)
        _say("the first night")
        run(folder, "one", "first", "null", shard_pairs=20_000)
        _say("the second night in full")
        full_s, full = run(folder, "two", "full", f"null:{rate:g}")
        _say("the second night with the first's scores")
        reused_s, reused = run(
            folder, "two", "reused", f"null:{rate:g}", reuse_from=str(folder / "first")
        )
        bytes_a_row = sum(
            path.stat().st_size for path in (folder / "_rankmill/full/scores").iterdir()
        )
    assert reused.reuse is not None
    return {
        "pairs": n_rows,
        "scored again": reused.reuse.n_new,
        "device, pairs/s": rate,
        "full s": round(full_s, 1),
        "with reuse s": round(reused_s, 1),
        "times faster": round(full_s / reused_s, 1),
        "the same bytes": [p.sha256 for p in full.parts] == [p.sha256 for p in reused.parts],
        "hashes kept, bytes a row": round(bytes_a_row / n_rows, 1),
        **_break_even(n_rows, rate, full_s, reused_s, reused.reuse.n_new),
    }


def run(
    folder: Path, source: str, name: str, model_id: str, **options: Any
) -> tuple[float, Manifest]:
    """Run a job to its end; return its seconds and its manifest."""
    started = time.perf_counter()
    job = submit(folder / source, folder / name, model_id=model_id, for_reuse=True, **options)
    for _ in job.watch(every_s=0.05):
        pass
    seconds = time.perf_counter() - started
    manifest = Output(str(folder / name)).read_manifest()
    assert manifest is not None, job.status()
    return seconds, manifest


def _break_even(
    n_rows: int, rate: float, full_s: float, reused_s: float, n_new: int
) -> dict[str, Any]:
    """Return the times besides the device, and the device rates up to which reuse pays.

    With N pairs, n of them new, a device of r pairs/s and other times a and b, the ratio is
    (N/r + a) / (n/r + b).
    """
    other_full, other_reused = full_s - n_rows / rate, reused_s - n_new / rate

    def rate_of(ratio: float) -> float | str:
        spare = ratio * other_reused - other_full
        return round((n_rows - ratio * n_new) / spare) if spare > 0 else "any"

    return {
        "besides the device, full s": round(other_full, 1),
        "besides the device, with reuse s": round(other_reused, 1),
        f"{_GOAL} times faster up to pairs/s": rate_of(_GOAL),
        "faster at all up to pairs/s": rate_of(1),
    }


def _generate(folder: Path, n_rows: int, changed: float) -> None:
    """Write pairs of real words; if some are changed, all are reordered and renamed."""
    folder.mkdir()
    words = read_corpus().words
    rng = np.random.default_rng(0)
    starts, sizes = rng.integers(0, len(words) - 100, n_rows), rng.integers(*_WORDS, n_rows)
    queries = np.arange(n_rows) // _CANDIDATES
    order, name = np.arange(n_rows), "d"
    is_changed = rng.random(n_rows) < changed
    if changed:
        order = np.lexsort((rng.random(n_rows), rng.permutation(queries.max() + 1)[queries]))
        name = "new"
    for number, start in enumerate(range(0, n_rows, _FILE_ROWS)):
        rows = order[start : start + _FILE_ROWS]
        cuts = zip(starts[rows].tolist(), sizes[rows].tolist(), strict=True)
        texts = (" ".join(words[first : first + size]) for first, size in cuts)
        documents = [
            f"{n} {text}{' changed' * is_new}"
            for n, text, is_new in zip(rows.tolist(), texts, is_changed[rows].tolist(), strict=True)
        ]
        table = {
            "query_id": pa.array(queries[rows]).cast(pa.string()),
            "doc_id": pa.array([f"{name}{at}" for at in range(start, start + len(rows))]),
            "query": pa.array([f"{words[q % len(words)]} {q}" for q in queries[rows].tolist()]),
            "document": pa.array(documents),
        }
        pq.write_table(pa.table(table), folder / f"{number:04d}.parquet", row_group_size=50_000)


def _say(step: str) -> None:
    print(f"{step} …", file=sys.stderr)


if __name__ == "__main__":
    main()
