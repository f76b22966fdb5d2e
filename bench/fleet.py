"""Measure many workers on one Redis: commands, connections, storage reads, memory.

    python -m bench.fleet [--workers 500] [--jobs 50 1000] [--seconds 30] [--json]

A simulated worker runs the real heartbeat, election and scan in a thread, with its own connection.
It takes no messages. One real worker that is idle is measured, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.system import _tables
from producer.cluster.local import (
    running,
    start_redis,
    worker_command,
)
from producer.jobs.submit import submit
from rankmill import storage
from rankmill.broker import app, queues_of
from rankmill.dispatch import Dispatcher
from rankmill.ledger.jobs import Ledger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings

Row = dict[str, Any]

_N_PROCESSES = 4
_SETTLE_S = 12.0


def main() -> None:
    """Measure the fleet for each number of jobs, and one idle worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--jobs", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {
        "fleet": [_fleet(options.workers, n, options.seconds) for n in options.jobs],
        "one real worker, idle": [_idle_worker(options.seconds)],
    }
    print(json.dumps(results, indent=2) if options.json else _tables(results))


def _fleet(n_workers: int, n_jobs: int, seconds: float) -> Row:
    """Measure simulated workers while jobs run whose shards all wait in the queue."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, _ = stack.enter_context(start_redis())
        os.environ["RANKMILL_BROKER_URL"] = url
        settings.cache_clear()
        app.cache_clear()
        ledger = Ledger.connect(settings())
        names = [str(n) for n in range(30)]
        table = pa.table({"query_id": names, "query": names, "document": names})
        source = folder / "in.parquet"
        pq.write_table(table, source)
        for n in range(n_jobs):
            submit(source, folder / str(n), model_id="null", shard_pairs=5)
        reads, stop = multiprocessing.Value("q", 0), multiprocessing.Event()
        each = -(-n_workers // _N_PROCESSES)
        processes = [
            multiprocessing.Process(target=_workers, args=(k, each, reads, stop), daemon=True)
            for k in range(_N_PROCESSES)
        ]
        for process in processes:
            process.start()
        stack.callback(stop.set)
        time.sleep(_SETTLE_S)
        row = _load(ledger, seconds, reads)
        seen = ledger.workers.n_live()
    return {"workers": seen, "jobs": n_jobs, **row}


def _workers(k: int, n: int, reads: Any, stop: Any) -> None:
    """Run the background loops of `n` workers in threads."""
    read_bytes = storage.read_bytes

    def counted(*arguments: Any, **options: Any) -> Any:
        with reads.get_lock():
            reads.value += 1
        return read_bytes(*arguments, **options)

    storage.read_bytes = counted

    def run(name: str) -> None:
        ledger = Ledger.connect(settings())
        reconciler, seen_at = Reconciler(Dispatcher(ledger, settings())), -1e9
        while not stop.is_set():
            if time.monotonic() - seen_at > 25:
                ledger.workers.seen(name, queues_of("all"))
                seen_at = time.monotonic()
            stop.wait(reconciler.scan())

    threads = [threading.Thread(target=run, args=(f"{k}-{i}@bench",)) for i in range(n)]
    for thread in threads:
        thread.start()
        time.sleep(5 / len(threads))
    for thread in threads:
        thread.join()


def _idle_worker(seconds: float) -> Row:
    """Measure one real worker that has nothing to do."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, _ = stack.enter_context(start_redis())
        os.environ["RANKMILL_BROKER_URL"] = url
        settings.cache_clear()
        app.cache_clear()
        environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_RUNTIME": str(folder)}
        ledger = Ledger.connect(settings())
        stack.enter_context(running(worker_command("one"), environment, folder / "worker.log"))
        while not ledger.workers.n_live():
            time.sleep(0.2)
        time.sleep(_SETTLE_S)
        return {"workers": 1, "jobs": 0, **_load(ledger, seconds, None)}


def _load(ledger: Ledger, seconds: float, reads: Any) -> Row:
    """Return the load of Redis and storage over some seconds, without this process's own."""
    before = ledger.redis.info()["total_commands_processed"]
    n_reads = reads.value if reads else 0
    time.sleep(seconds)
    info = ledger.redis.info()
    clients = Counter(each["name"] for each in ledger.redis.client_list())
    n_reads = (reads.value if reads else 0) - n_reads
    return {
        "commands/s": round((info["total_commands_processed"] - before - 1) / seconds, 2),
        "connections": sum(clients.values()) - 1,
        "storage reads/s": round(n_reads / seconds, 2),
        "Redis MB": round(info["used_memory"] / 1e6, 1),
    }


if __name__ == "__main__":
    main()
