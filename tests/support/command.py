"""`rankmill` as a user types it, on one core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def environment() -> dict[str, str]:
    """Return the environment as the fixtures have set it, for one core and no GPU."""
    return {**os.environ, "RANKMILL_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def rankmill(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder or in the current one."""
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=environment(),
    )
