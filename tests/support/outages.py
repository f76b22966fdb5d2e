"""Two workers and a beat through an outage of Redis, and the checks that they went on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from producer.cluster.local import running, worker_command
from producer.jobs.handle import JobHandle
from producer.jobs.submit import submit
from tests.conftest import forget_settings
from tests.support.inputs import pairs, read_output, wait_for, write

NAMES = ("one", "two", "beat")
BEAT = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--pidfile", "", "-l", "INFO"]
_N_ROWS = 1000


@dataclass
class Cluster:
    """The processes by name; each has a log."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def lines(self, name: str) -> list[dict[str, Any]]:
        text = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def n_ticks(self) -> int:
        return sum("Sending due task" in line["event"] for line in self.lines("beat"))

    def job_under_way(self, folder: Path) -> JobHandle:
        source = write(pairs(_N_ROWS // 10, 10), folder / "in.parquet")
        job = submit(source, folder / "out", model_id="null:500", shard_pairs=_N_ROWS // 20)
        wait_for(lambda: len(job.output.reported_shards()) >= 4)
        assert len(job.output.reported_shards()) < 16, "the outage would come too late"
        return job

    def check_went_on(self, job: JobHandle) -> None:
        """Wait for the job and beat; check each row, the processes and their logs."""
        assert job.wait(timeout_s=60).state == "succeeded"
        output = Path(job.output.uri)
        rows = Counter((row["query_id"], row["doc_id"]) for row in read_output(output))
        assert len(rows) == _N_ROWS and set(rows.values()) == {1}
        n_ticks = self.n_ticks()
        wait_for(lambda: self.n_ticks() > n_ticks, 30)
        ended = {name: each.poll() for name, each in self.processes.items()}
        assert set(ended.values()) == {None}, ended
        for name in NAMES:
            lines = self.lines(name)
            assert not [each for each in lines if "exception" in each], name
            assert not [each for each in lines if each["level"] == "critical"], name
            waiting = [each for each in lines if each["event"] == "waiting for Redis"]
            minutes = {_seconds(each) // 60 for each in waiting}
            assert len(waiting) <= 2 * (len(minutes) + 1), waiting  # a worker is two processes

    def has_waited(self, name: str) -> bool:
        return any(line["event"] == "waiting for Redis" for line in self.lines(name))


def _seconds(line: dict[str, Any]) -> int:
    hours, minutes, seconds = line["timestamp"][11:19].split(":")
    return (int(hours) * 60 + int(minutes)) * 60 + int(seconds)


@contextmanager
def cluster(folder: Path, broker: Mapping[str, str]) -> Iterator[Cluster]:
    """Start two workers and a beat on a broker; this process uses it too."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in {
            **{"RECONCILE_S": "0.5", "CLAIM_S": "2", "TICK_S": "1"},
            **{"RUNTIME": str(folder), "THREADS": "1", "LOG_FORMAT": "json"},
        }.items():
            patch.setenv(f"RANKMILL_{name}", value)
        for name, value in {**broker, "CUDA_VISIBLE_DEVICES": ""}.items():
            patch.setenv(name, value)
        forget_settings()
        built = Cluster(folder)
        for name in NAMES:
            command = BEAT if name == "beat" else worker_command(name)
            started = running(command, {}, folder / f"{name}.log")
            built.processes[name] = stack.enter_context(started)
        yield built
    forget_settings()
