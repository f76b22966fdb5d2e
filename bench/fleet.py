"""Measure hundreds of workers on one Redis: commands, connections, storage calls, memory.

    python -m bench.fleet [--workers 500] [--jobs 50 1000] [--seconds 20] [--json]

Each worker of the fleet is the real main process of a worker, with its consumer, its heartbeats and
its scans. It is forked from one that has imported all, and takes no child. 500 of them need 12 GB.
The shards of the jobs wait in a queue that no worker takes, as behind a long job. It prints whether
each bar is met.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.system import _broker, _tables
from producer.cluster.local import running, worker_command
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, SCORE_QUEUE, score_queue, task_id_of
from rankmill.dispatch import Dispatcher
from rankmill.ledger.jobs import Ledger
from rankmill.reconcile import Reconciler
from rankmill.settings import settings
from rankmill.storage import stores

Row = dict[str, Any]

_IDLE_S = 60.0  # all that a worker sends repeats in less
_SETTLE_S = 7.0
_STORAGE_S = 0.05
_N_SCANNERS = 3


def main() -> None:
    """Measure one idle worker, the fleet for each number of jobs, and scans on a slow storage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--jobs", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ |= {"RANKMILL_MODEL_QUEUES": "null", "CUDA_VISIBLE_DEVICES": ""}
    idle = _idle_worker()
    fleet, slow = _fleet(options.workers, sorted(options.jobs), options.seconds)
    few = fleet[0]
    bars = [
        _bar("idle worker, commands/s", idle["commands/s"], 1),
        _bar("idle worker, connections", idle["connections"], 4),
        _bar(f"{few['workers']} workers, {few['jobs']} jobs, commands/s", few["commands/s"], 1500),
        _bar("connections a worker", max(row["connections a worker"] for row in fleet), 4),
        _bar("slow storage, longest scan over its lease", slow["longest scan / lease"], 1),
        _bar("slow storage, shards sent twice", slow["sent twice"], 0),
    ]
    results = {"one real worker": [idle], "fleet": fleet, "slow storage": [slow], "bars": bars}
    print(json.dumps(results, indent=2) if options.json else _tables(results))


def _bar(what: str, value: float, at_most: float) -> Row:
    return {
        "bar": what,
        "at most": at_most,
        "measured": value,
        "result": "met" if value <= at_most else "missed",
    }


def _idle_worker() -> Row:
    """Measure one real worker, with its child, that has nothing to do."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_broker())
        ledger = Ledger.connect(settings())
        environment = {"RANKMILL_RUNTIME": str(folder)}
        stack.enter_context(running(worker_command("one"), environment, folder / "worker.log"))
        while not ledger.workers.n_live():
            time.sleep(0.2)
        time.sleep(_SETTLE_S)
        return {"workers": 1, "jobs": 0, **_load(ledger, _IDLE_S)}


def _fleet(n_workers: int, job_counts: list[int], seconds: float) -> tuple[list[Row], Row]:
    """Measure the fleet for each number of jobs; then, without it, scans of lost work."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_broker())
        os.environ["RANKMILL_RUNTIME"] = str(folder)
        ledger = Ledger.connect(settings())
        calls = multiprocessing.Value("q", 0)
        names = [str(n) for n in range(30)]
        source, rows, n_jobs = folder / "in.parquet", [], 0
        with _workers(n_workers, ledger, folder, lambda: _add_one(calls)):
            columns = dict.fromkeys(("query_id", "query", "document"), names)
            pq.write_table(pa.table(columns), source)
            for n_wanted in job_counts:
                while n_jobs < n_wanted:
                    submit(source, folder / str(n_jobs), model_id="null", shard_pairs=5)
                    n_jobs += 1
                time.sleep(_SETTLE_S)
                before = calls.value
                row = {"workers": ledger.workers.n_live(), "jobs": n_jobs, **_load(ledger, seconds)}
                row["connections a worker"] = round(row["connections"] / row["workers"], 2)
                row["storage calls/s"] = round((calls.value - before) / seconds, 2)
                rows.append(row)
        return rows, _slow_storage(ledger, 1.5 * seconds)


@contextmanager
def _workers(
    n: int, ledger: Ledger, folder: Path, on_storage: Callable[[], None]
) -> Iterator[None]:
    """Run the main processes of `n` workers."""
    from tasks.celery import app  # here, as it is made for the broker that has just started

    app.conf.broker_url = settings().broker_url
    app.loader.import_default_modules()
    app.finalize()
    stores._local_store = lambda: _Observed(local, on_storage)
    local = _LOCAL_STORE()
    gc.collect()
    gc.freeze()  # so that collecting garbage copies no memory in a fork
    fork = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    try:
        for number in range(n):
            process = fork.Process(target=_work, args=(number, folder / "workers.log"), daemon=True)
            process.start()
            processes.append(process)
            time.sleep(0.05)
        while ledger.workers.n_live() < n:
            time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        gc.unfreeze()


def _work(number: int, log: Path) -> None:
    """Be a worker's main process; `solo` is a pool without children."""
    from tasks.celery import app

    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    app.worker_main(
        [
            *("--quiet", "worker", "--hostname", f"{number}@bench", "--pool", "solo"),
            *("--queues", f"{CONTROL_QUEUE},{SCORE_QUEUE}", "--without-gossip", "--without-mingle"),
        ]
    )


def _slow_storage(ledger: Ledger, seconds: float) -> Row:
    """Lose every message, and let three workers scan on a storage of 50 ms a call."""
    queue, period_s = score_queue("null"), settings().reconcile_s
    job_ids = ledger.job_ids()
    for job_id in job_ids:
        for shard_index in ledger.in_flight(job_id):
            ledger.sent_again(job_id, shard_index, -1000)
    ledger.redis.delete(queue)
    stores._local_store = lambda: _Observed(local, lambda: time.sleep(_STORAGE_S))
    local = _LOCAL_STORE()
    stop, lasted = threading.Event(), []

    def scan_for_ever() -> None:
        reconciler = Reconciler(Dispatcher(Ledger.connect(settings()), settings()))
        while not stop.is_set():
            began = time.monotonic()
            pause_s = reconciler.scan()
            lasted.append(time.monotonic() - began)
            stop.wait(pause_s)

    threads = [threading.Thread(target=scan_for_ever) for _ in range(_N_SCANNERS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    sent = Counter(map(task_id_of, ledger.queued(queue)))
    return {
        "jobs": len(job_ids),
        "seconds": seconds,
        "longest scan s": round(max(lasted), 2),
        "longest scan / lease": round(max(lasted) / (1.1 * period_s), 2),
        "sent": sent.total(),
        "sent twice": sent.total() - len(sent),
    }


class _Observed:
    """A store that calls a function before each of its methods."""

    def __init__(self, store: Any, before: Callable[[], None]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._before()
            return method(*arguments, **options)

        return call


_LOCAL_STORE = stores._local_store


def _add_one(counter: Any) -> None:
    with counter.get_lock():
        counter.value += 1


def _load(ledger: Ledger, seconds: float) -> Row:
    """Return the load of Redis over some seconds, without this process's own commands."""
    before = ledger.redis.info()["total_commands_processed"]
    mine = ledger.redis.client_id()
    time.sleep(seconds)
    info = ledger.redis.info()
    others = [each for each in ledger.redis.client_list() if int(each["id"]) != mine]
    return {
        "commands/s": round((info["total_commands_processed"] - before - 2) / seconds, 2),
        "connections": len(others),
        "Redis MB": round(info["used_memory"] / 1e6, 1),
    }


if __name__ == "__main__":
    main()
