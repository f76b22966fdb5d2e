"""Measure the images: sizes, time to a first score, a worker's CPU time and memory.

python docker/sizes.py [--model FOLDER]

Needs a Docker Engine, zstd and images that `make test-compose` built; prints the tables of
docs/deployment.md. GPU images are there after `KEEP_IMAGES=1 make test-gpu-images`. It starts its
own stack next to any that runs, and takes it down.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.compose.stack import Stack

TARGETS_MB = {"control:test": 400, "worker-cpu:test": 700, "worker-gpu:test-small": 3000}
OTHERS = ("worker-gpu:test-safe", "worker-gpu:test-none")
OUTPUT, CONTROL = "/data/first", "/data/_rankmill/first"
# So few pairs that the start dominates.
SOME = """
import pyarrow.parquet as pq
pq.write_table(pq.read_table("/app/examples/packages.parquet")[:4], "/data/some.parquet")
"""
FIRST = (f"{OUTPUT}/part-00000.parquet", f"{CONTROL}/shards/00000.json")
SAMPLED_S, SETTLED_S, LIMIT_S = 0.1, 3.0, 300.0


def main() -> None:
    """Print the sizes, then the first score."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, help="a model's folder [the demo model]")
    model: Path | None = parser.parse_args().model
    print("| image | size | compressed | target |\n| --- | --- | --- | --- |")
    for name in (*TARGETS_MB, *OTHERS):
        size = size_mb(f"rankmill/{name}")
        if size is not None:
            packed = compressed_mb(f"rankmill/{name}")
            print(f"| {name} | {size} MB | {packed} MB | {TARGETS_MB.get(name, '')} |")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.write_env(TORCH_INDEX="")
        try:
            print_first_score(stack, model)
        finally:
            stack.try_compose("down", "--volumes", "--timeout", "20", timeout_s=300)


def print_first_score(stack: Stack, model: Path | None) -> None:
    """Score four pairs in a fresh container; print the times and the worker's memory."""
    stack.compose("up", "--wait", "redis", "control", timeout_s=300)
    name = "demo"
    if model is not None:
        name = f"/data/{model.name}"
        image = stack.inspect("control")["Config"]["Image"]
        mounts = ["-v", f"{stack.project}_data:/data", "-v", f"{model.resolve()}:/from:ro"]
        copy = ["docker", "run", "--rm", "--user", "0", *mounts, "--entrypoint", "cp", image]
        subprocess.run([*copy, "-r", "/from", name], check=True)
    stack.python(SOME)
    stack.cli("submit", "/data/some.parquet", OUTPUT, "--model", name)
    stack.compose("up", "--detach", "worker-cpu", timeout_s=300)
    pid = int(stack.inspect("worker-cpu")["State"]["Pid"])
    with Samples(pid) as samples:
        part, report = (written_at(stack, pid, path) for path in FIRST)
        time.sleep(SETTLED_S)
    started = datetime.fromisoformat(stack.inspect("worker-cpu")["State"]["StartedAt"]).timestamp()
    print(
        f"\nmodel {name}: after the container's start, first part {part - started:.1f} s "
        f"({samples.cpu_s(part):.1f} s of CPU), committed {report - started:.1f} s "
        f"({samples.cpu_s(report):.1f} s of CPU); {samples.peak_mb:.0f} MB at its peak, "
        f"{samples.last_mb:.0f} MB at the end; load {os.getloadavg()[0]:.1f}"
    )


def written_at(stack: Stack, pid: int, path: str) -> float:
    """Wait for a file of a container and return when it was written, since 1970.

    It is seen through the container's process. A command in the container would take the worker's
    cores.
    """
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            return Path(f"/proc/{pid}/root{path}").stat().st_mtime
        time.sleep(SAMPLED_S)
    raise SystemExit(stack.try_compose("logs", "--tail", "30", "worker-cpu").stdout)


class Samples:
    """Samples CPU time and memory of a process and all its children; shared pages count once.

    Attributes:
        peak_mb: the most memory of any sample.
        last_mb: the memory of the last sample.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = self.last_mb = 0.0
        self._pid = pid
        self._cpu_s: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def cpu_s(self, at: float) -> float:
        """Return the seconds of CPU that were used up to a time since 1970."""
        return max((cpu_s for time_s, cpu_s in self._cpu_s if time_s <= at), default=0.0)

    def _sample(self) -> None:
        while not self._done.wait(SAMPLED_S):
            pids = with_children(self._pid)
            self._cpu_s.append((time.time(), sum(map(cpu_s, pids))))
            self.last_mb = sum(map(pss_kb, pids)) * 1024 / 1e6
            self.peak_mb = max(self.peak_mb, self.last_mb)


def with_children(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread has ended
            for child in children.read_text().split():
                found += with_children(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU of a process and of its ended children, 0 if it has ended."""
    with suppress(psutil.Error):
        return sum(psutil.Process(pid).cpu_times()[:4])
    return 0.0


def pss_kb(pid: int) -> int:
    """Return the proportional set size of a process, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def size_mb(image: str) -> int | None:
    """Return the size of an image; None if it is not there."""
    command = ["docker", "image", "inspect", image, "--format", "{{.Size}}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return round(int(done.stdout) / 1e6) if done.returncode == 0 else None


def compressed_mb(image: str) -> int:
    """Return the size of an image as registries keep it, by zstd's default level."""
    command = f"docker save {shlex.quote(image)} | zstd -3 --stdout | wc --bytes"
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    return round(int(done.stdout) / 1e6)


if __name__ == "__main__":
    main()
