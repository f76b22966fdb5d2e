"""Benchmarks of all but scoring: dispatch, Redis memory, overhead, scale-out, device utilisation.

    python -m bench.system [dispatch memory overhead scale busy] [--json]

Workers are real processes on a private Redis. The scorer is `null`, which does nothing or sleeps as
a device would; for `busy` it is a model in MiniLM-L6's shape on all cores. Ratios and bytes can be
compared between machines, absolute rates cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producer.cluster.local import running, start_redis, worker_command
from producer.jobs.submit import submit
from rankmill.broker import app
from rankmill.contract.job import JobRecord, JobSpec
from rankmill.contract.plan import Columns, Plan, encode_schema
from rankmill.contract.results import Manifest
from rankmill.dispatch import Dispatcher
from rankmill.ledger.jobs import Ledger
from rankmill.output.output import Job, Output
from rankmill.settings import settings

Row = dict[str, Any]

_RATE = 1000  # pairs a second of the sleeping scorer
_BUSY_SHARDS, _BUSY_SHARD_S = 4, 35


def main() -> None:
    """Run the parts of the command line and print their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=str([*PARTS]))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for part in options.parts:
        print(f"{part} …", file=sys.stderr)
        results[part] = PARTS[part]()
    print(json.dumps(results, indent=2) if options.json else _tables(results))


def dispatch_rate() -> list[Row]:
    """Shards a second through submit, one worker and finalize, nothing to score."""
    n_shards = 500
    with cluster(1) as folder:
        seconds = [_job_s(folder, f"out-{n}", n_shards * 5, n_shards, "null") for n in range(3)]
    return [{"shards": n_shards, "shards/s": round(n_shards / median(seconds), 1)}]


def redis_memory() -> list[Row]:
    """Measure the memory of one job in Redis, at its start and at its end."""
    rows = []
    for n_shards in (100, 10_000, 100_000):
        with _broker():
            ledger = Ledger.connect(settings())
            empty = _used_memory(ledger)
            job = _planned(n_shards)
            Dispatcher(ledger, settings()).start(job)
            begun = _used_memory(ledger) - empty
            ledger.redis.setbit(f"rankmill:job:{job.job_id}:done", n_shards - 1, 1)
            rows.append(
                {
                    "shards": n_shards,
                    "bytes at start": begun,
                    "bytes at the end": _used_memory(ledger) - empty,
                    "messages in flight": len(ledger.in_flight(job.job_id)),
                }
            )
    return rows


def overhead() -> list[Row]:
    """Compare the wall time of a job of some minutes with the seconds of its device."""
    n_rows = 150 * _RATE
    with cluster(1) as folder:
        _job_s(folder, "warm-up", 1000, 1, "null")
        wall_s = _job_s(folder, "out", n_rows, 32, f"null:{_RATE}")
    pure_s = n_rows / _RATE
    return [{"device s": pure_s, "wall s": round(wall_s, 2), "ratio": round(wall_s / pure_s, 4)}]


def scale_out() -> list[Row]:
    """Run one job on more and more workers that sleep; efficiency is T(1) / (n T(n))."""
    rows: list[Row] = []
    for n_workers in (1, 2, 4, 8):
        with cluster(n_workers) as folder:
            _job_s(folder, "warm-up", 8000, 8 * n_workers, "null")
            wall_s = _job_s(folder, "out", 120 * _RATE, 120, f"null:{_RATE}")
        first_s = rows[0]["wall s"] if rows else wall_s
        efficiency = round(first_s / (n_workers * wall_s), 3)
        rows.append({"workers": n_workers, "wall s": round(wall_s, 2), "efficiency": efficiency})
    return rows


def device_busy() -> list[Row]:
    """Seconds inside forwards over seconds of shards, and over all of a job, start to end."""
    from bench.engine.shapes import SHAPES, make_checkpoint
    from bench.workload import build_pairs, read_corpus

    corpus = read_corpus()
    with cluster(1, threads=0) as folder:
        model = str(make_checkpoint(SHAPES["minilm"], folder / "model", corpus.sentences))

        def run(name: str, n_pairs: int, n_shards: int) -> tuple[Manifest, float]:
            queries, documents = zip(*build_pairs(corpus, "plain", n_pairs), strict=True)
            ids = [f"q{n // 50}" for n in range(n_pairs)]
            columns = {"query_id": ids, "query": queries, "document": documents}
            pq.write_table(pa.table(columns), folder / f"{n_pairs}.parquet")
            seconds = _job_s(folder, name, n_pairs, n_shards, model)
            manifest = Output(str(folder / name)).read_manifest()
            assert manifest is not None
            return manifest, seconds

        warm_up, _ = run("warm-up", 500, 1)
        n_pairs = int(_BUSY_SHARD_S * warm_up.n_scored / warm_up.device_busy_s)
        done, wall_s = run("out", _BUSY_SHARDS * n_pairs, _BUSY_SHARDS)
    return [
        {
            "shards": _BUSY_SHARDS,
            "s a shard": round(done.scoring_s / _BUSY_SHARDS, 1),
            "of the shards": round(done.device_busy_s / done.scoring_s, 4),
            "of the job": round(done.device_busy_s / wall_s, 4),
        }
    ]


PARTS = {
    "dispatch": dispatch_rate,
    "memory": redis_memory,
    "overhead": overhead,
    "scale": scale_out,
    "busy": device_busy,
}


@contextmanager
def _broker() -> Iterator[None]:
    with start_redis() as (broker_url, _):
        os.environ["RANKMILL_BROKER_URL"] = broker_url
        settings.cache_clear()
        app.cache_clear()
        yield


@contextmanager
def cluster(n_workers: int, threads: int = 1) -> Iterator[Path]:
    """Start workers, wait until Redis knows them, and yield a folder for files."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_broker())
        for n in range(n_workers):
            environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": str(threads)}
            command = worker_command(f"w{n}")
            stack.enter_context(running(command, environment, folder / f"{n}.log"))
        ledger = Ledger.connect(settings())
        while ledger.workers.n_live() < n_workers:
            time.sleep(0.2)
        yield folder


def _job_s(folder: Path, name: str, n_rows: int, n_shards: int, model_id: str) -> float:
    """Run a job and return the seconds from submitting it to its end."""
    source = folder / f"{n_rows}.parquet"
    if not source.exists():
        ids = pa.array([f"q{n // 5}" for n in range(n_rows)])
        texts = pa.array(["some text"] * n_rows)
        doc_ids = pa.array(range(n_rows))
        columns = {"query_id": ids, "doc_id": doc_ids, "query": texts, "document": texts}
        pq.write_table(pa.table(columns), source)
    started = time.perf_counter()
    job = submit(source, folder / name, model_id=model_id, shard_pairs=-(-n_rows // n_shards))
    for _ in job.watch(every_s=0.05):
        pass
    return time.perf_counter() - started


def _planned(n_shards: int) -> Job:
    spec = JobSpec(input_uri="/nowhere/in", output_uri="/nowhere/out", model_id="null")
    columns = Columns(query="q", document="d", query_id=None, doc_id=None, kept={})
    bounds = tuple(range(0, 1000 * n_shards + 1, 1000))
    plan = Plan(
        job_id="0123456789ab",
        files=(),
        arrow_schema=encode_schema(pa.schema([])),
        columns=columns,
        shard_bounds=bounds,
    )
    record = JobRecord(job_id="0123456789ab", spec=spec, submitted_at=datetime.now(UTC))
    return Job(record, plan)


def _used_memory(ledger: Ledger) -> int:
    return int(ledger.redis.info("memory")["used_memory"])


def _tables(results: dict[str, list[Row]]) -> str:
    lines = []
    for part, rows in results.items():
        header = list(rows[0])
        lines += [f"\n{part}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += [
            "| " + " | ".join(map(_shown, (row[key] for key in header))) + " |" for row in rows
        ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


if __name__ == "__main__":
    main()
