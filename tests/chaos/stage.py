"""A small cluster to break: a Redis that keeps its data, three workers, a job, and its checks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.cluster.local import redis_command, running, wait_for_redis, worker_command
from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from rankmill.ledger.jobs import Ledger
from rankmill.settings import CHECKOUT, settings
from tests.conftest import forget_settings
from tests.support.inputs import part_bytes, read_output, read_rejected, wait_for
from tests.support.processes import pool_processes

N_SHARDS = 48


@dataclass(frozen=True)
class Outcome:
    """A line of the table."""

    fault: str
    recovery_s: float
    wall_s: float
    n_run_twice: int
    n_lost: int

    def line(self) -> str:
        times = f"{self.recovery_s:.1f} s | {self.wall_s:.1f} s"
        return f"| {self.fault} | {times} | {self.n_run_twice} | {self.n_lost} |"


@dataclass(frozen=True)
class Hit:
    """The start of a fault, and the shards in flight then."""

    at: float
    shards: frozenset[int]


@dataclass
class Stage:
    """The parts that a fault may break; `ledger` is the test's own connection."""

    folder: Path
    source: Path
    broker_url: str
    ledger: Ledger
    redis: subprocess.Popen[bytes] = field(init=False)
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    worker_environment: dict[str, str] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start_worker(self, name: str) -> None:
        environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": "1"}
        self.workers[name] = self._stack.enter_context(
            running(
                worker_command(name),
                environment | self.worker_environment,
                self.folder / f"worker-{name}.log",
            )
        )

    def start_redis(self) -> None:
        socket_path = Path(self.broker_url.removeprefix("redis+socket://"))
        log = socket_path.with_suffix(".log")
        command = [*redis_command(socket_path), "--appendonly", "yes"]
        self.redis = self._stack.enter_context(running(command, {}, log))
        wait_for_redis(self.broker_url, log)

    def child_of(self, name: str) -> int:
        """Return the pool process that scores, not billiard's helpers; wait for a new one."""
        worker = self.workers[name].pid
        wait_for(lambda: pool_processes(worker))
        return pool_processes(worker)[0]

    def kill_worker(self, name: str) -> None:
        os.killpg(self.workers.pop(name).pid, signal.SIGKILL)

    def submit(self, output: Path | None = None) -> JobHandle:
        return submit_to(self.source, output or self.folder / "out")

    def about_to_break(self, job: JobHandle) -> Hit:
        in_flight = self.ledger.in_flight(job.job_id)
        return Hit(time.monotonic(), frozenset(in_flight))

    def runs(self, job_id: str) -> Counter[int]:
        """Return the starts of each shard of a job, from the workers' logs."""
        events = (json.loads(line) for line in self.logs().splitlines() if line[:1] == "{")
        return Counter(
            event["shard_index"]
            for event in events
            if event["event"] == "shard started" and event["job_id"] == job_id
        )

    def logs(self) -> str:
        return "".join(log.read_text() for log in self.folder.glob("worker-*.log"))

    def freeze_a_holder(self, job: JobHandle) -> tuple[int, int]:
        """Stop a process in the middle of a shard; return its id and the shard's index."""
        claims = self.ledger.claims
        while True:
            for shard_index in self.ledger.in_flight(job.job_id):
                holder = claims.holder(job.job_id, shard_index)
                if holder is None:
                    continue
                pid = int(holder.partition(" ")[0].rpartition(":")[2])
                os.kill(pid, signal.SIGSTOP)
                if claims.holder(job.job_id, shard_index) == holder:
                    return pid, shard_index
                os.kill(pid, signal.SIGCONT)

    def wait_and_check(
        self,
        job: JobHandle,
        fault: str,
        hit: Hit,
        reference: Path,
        within_s: float = 240,
    ) -> Outcome:
        """Wait for the end; check each row, the bytes, and that nothing is left."""
        wait_for(lambda: hit.shards <= job.output.reported_shards(), within_s)
        recovery_s = time.monotonic() - hit.at
        status = job.wait(timeout_s=within_s)
        assert status.state == "succeeded with rejects", status
        output = Path(job.output.uri)
        assert part_bytes(output) == part_bytes(reference)
        assert read_rejected(output) == read_rejected(reference)
        assert not list(output.rglob("*.rankmill-tmp")), "a temporary file is left"
        rows = Counter((row["query_id"], row["doc_id"]) for row in read_output(output))
        rows += Counter((row["query_id"], row["doc_id"]) for row in read_rejected(output))
        wanted = Counter(
            (row["query_id"], row["doc_id"])
            for row in pq.read_table(self.source, columns=["query_id", "doc_id"]).to_pylist()
        )
        outcome = Outcome(
            fault=fault,
            recovery_s=recovery_s,
            wall_s=time.monotonic() - hit.at,
            n_run_twice=sum(1 for n in self.runs(job.job_id).values() if n > 1),
            n_lost=(wanted - rows).total(),
        )
        assert rows == wanted, outcome
        return outcome


def submit_to(source: Path, output: Path) -> JobHandle:
    return submit(
        source, output, model_id="demo", precision="fp32", shard_pairs=shard_pairs(source)
    )


def shard_pairs(source: Path) -> int:
    return -(-pq.read_metadata(source).num_rows // N_SHARDS)


def write_source(target: Path) -> Path:
    """Write the example's rows, of which some are bad."""
    table = pq.read_table(CHECKOUT / "examples" / "packages.parquet")
    documents = table["document"].to_pylist()
    for row in range(500, len(documents), 1000):
        documents[row] = "" if row % 2000 == 500 else None
    column = table.column_names.index("document")
    pq.write_table(table.set_column(column, "document", pa.array(documents)), target)
    return target


@contextmanager
def watched_stage(
    folder: Path, source: Path, broker: dict[str, str], patch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Yield a stage on a Redis that sentinels watch, which the caller has started."""
    for name, value in broker.items():
        patch.setenv(name, value)
    forget_settings()
    with ExitStack() as stack:
        ledger = Ledger.connect(settings())
        yield Stage(folder, source, settings().broker_url, ledger, _stack=stack)
    forget_settings()


@contextmanager
def stage(folder: Path, source: Path, broker_url: str) -> Iterator[Stage]:
    """Yield a stage with a Redis that has an append-only file; stop everything at the end."""
    with ExitStack() as stack:
        ledger = Ledger.connect(settings())
        built = Stage(folder, source, broker_url, ledger, _stack=stack)
        built.start_redis()
        yield built
