"""Measure whole processes: from the start of one to its first score, and two on one device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from bench.gpu.guard import failures_as_rows
from bench.gpu.rows import Budget, Rows

_CHECKOUT = Path(__file__).parents[2]


class Child:
    """A process of `bench.gpu.child`."""

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    def facts(self) -> dict[str, float]:
        """Return the next line that it prints.

        Raises:
            RuntimeError: it ended; with the last line of its log.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            facts: dict[str, float] = json.loads(line)
            return facts
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(last[0] if last else "the process ended without a word")

    def go(self, seconds: float) -> None:
        """Let it score for so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()


def measure_start(
    folder: Path, *, device: str, precision: str, rows: Rows, budget: Budget, runs: int = 3
) -> None:
    """Write the seconds from the start of a process to its first scores, several times.

    The first time, files may come from a cold disk. With Celery here, also the seconds of
    `rankmill run` to its first committed row.
    """
    took = 0.0
    for number in range(runs):
        if not budget.allows(f"start {number}", 1.5 * took):
            continue
        with failures_as_rows(rows, f"start {number}", device):
            began = time.perf_counter()
            with child(folder, device, precision, 256) as started:
                facts = started.facts()
                took = time.perf_counter() - began
            rows.write("start", number=number, seconds=took, **facts)
    whole = "from rankmill run to the first row"
    if device != "cpu" and find_spec("celery") and budget.allows(whole, 3 * took):
        with failures_as_rows(rows, whole, device):
            # A bare machine has no pyarrow, with which it makes its input.
            from bench.engine.start import seconds_to_first_row

            rows.write("run", seconds=seconds_to_first_row(str(folder)))


def measure_two(
    folder: Path,
    *,
    device: str,
    precision: str,
    n_pairs: int,
    seconds: float,
    rows: Rows,
    budget: Budget,
) -> None:
    """Write the pairs a second of one process on the device, then of two at once."""
    rates: dict[int, float] = {}
    took = 0.0
    for n in (1, 2):
        what = f"{n} on one device"
        if not budget.allows(what, 2 * took + seconds):
            continue
        with failures_as_rows(rows, what, device), ExitStack() as stack:
            began = time.perf_counter()
            children = [
                stack.enter_context(child(folder, device, precision, n_pairs)) for _ in range(n)
            ]
            for each in children:
                each.facts()
            for each in children:
                each.go(seconds)
            done = [each.facts() for each in children]
            took = time.perf_counter() - began
            rates[n] = sum(facts["n_pairs"] / facts["seconds"] for facts in done)
            rows.write("together", n_workers=n, pairs_per_s=rates[n])
    if len(rates) == 2:
        rows.write("two", times_one=rates[2] / rates[1])


@contextmanager
def child(folder: Path, device: str, precision: str, n_pairs: int) -> Iterator[Child]:
    """Run a child for the block; it is killed at its end."""
    command: list[Any] = [sys.executable, "-m", "bench.gpu.child", folder, "--device", device]
    command += ["--precision", precision, "--pairs", n_pairs]
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [str(each) for each in command],
            cwd=_CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield Child(process, log)
        finally:
            process.kill()
            process.communicate()
