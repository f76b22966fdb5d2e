"""`rankmill` as a user types it, on one core."""

from __future__ import annotations

import os
import subprocess
import sys


def rankmill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """With the environment as the fixtures have set it, credentials and endpoint included."""
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RANKMILL_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
