"""The rows of a call, on disk when they are measured, and the seconds that it may take."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXIT_OUT_OF_TIME = 4


class Rows:
    """A file of JSON lines, which holds every row that was measured whatever happens next."""

    def __init__(self, path: Path, call: str) -> None:
        """Append to a file, after the end of a line that a killed process left open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.call = call
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, kind: str, **facts: Any) -> None:
        """Append a row, and wait until it is on disk."""
        at_s = round(time.perf_counter() - self._began, 2)
        row = json.dumps({"call": self.call, "kind": kind, "at_s": at_s, **facts})
        with self._lock:
            os.write(self._file, f"{row}\n".encode())
            os.fsync(self._file)
        print(row, file=sys.stderr, flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, without a last one that a killed process did not finish."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Budget:
    """The seconds of a call. What does not fit is left out, and the rows say so.

    A measurement that takes longer than expected is cut off with the process (exit 4).
    """

    def __init__(self, limit_s: float, rows: Rows) -> None:
        self._rows = rows
        self._doing = "starting"
        self._ends = time.perf_counter() + limit_s
        self._limit_s = limit_s
        self._is_over = threading.Event()

    @property
    def left_s(self) -> float:
        """The seconds that are left."""
        return self._ends - time.perf_counter()

    def allows(self, what: str, expected_s: float) -> bool:
        """Return whether a measurement fits, and note it as the one being made; else a row."""
        if expected_s <= self.left_s:
            self._doing = what
            return True
        needs, left = round(expected_s, 2), round(max(0.0, self.left_s), 2)
        self._rows.write("left_out", what=what, expected_s=needs, left_s=left)
        return False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """End this process when the time is over, unless the block has ended before."""
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        finally:
            self._is_over.set()

    def _watch(self) -> None:
        if not self._is_over.wait(max(0.0, self.left_s)):
            self._rows.write("cut_off", during=self._doing, limit_s=self._limit_s)
            os._exit(EXIT_OUT_OF_TIME)
