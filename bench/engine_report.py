"""The results of a benchmark of the engine: one row a comparison, as a table or as JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Comparison:
    """The engine against its peer on one model, mix and precision; seconds are medians.

    Attributes:
        peer_batch: the batch size at which the tuned peer was fastest on a sample.
        peer_default_s: the peer at its defaults (fp32, batch 32).
        core_times_tuned: the same ratio of core-seconds, as is core_times_default.
        peak_share: useful FLOPs a second over the measured same-dtype matmul rate.
        device_busy_share: of the engine's own wall time.
        max_difference: the largest logit difference to the tuned peer.
    """

    model: str
    mix: str
    precision: str
    n_pairs: int
    mean_tokens: float
    engine_s: float
    peer_s: float
    peer_batch: int
    peer_default_s: float
    core_times_tuned: float
    core_times_default: float
    peak_share: float
    device_busy_share: float
    max_difference: float

    @property
    def times_tuned(self) -> float:
        """The tuned peer's time over the engine's."""
        return self.peer_s / self.engine_s

    @property
    def times_default(self) -> float:
        """The default peer's time over the engine's."""
        return self.peer_default_s / self.engine_s


def table(rows: list[Comparison]) -> str:
    """Return the comparisons as lines of text under a header."""
    head = (
        f"{'model':8}{'mix':12}{'type':6}{'tok/pair':>9}{'pairs/s':>9}{'tuned':>9}{'(batch)':>8}"
        f"{'x tuned':>9}{'x default':>10}{'(x cores)':>13}{'of peak':>9}{'busy':>7}{'max diff':>10}"
    )
    return "\n".join([head, *(_line(row) for row in rows)])


def _line(row: Comparison) -> str:
    rate, peer = row.n_pairs / row.engine_s, row.n_pairs / row.peer_s
    return (
        f"{row.model:8}{row.mix:12}{row.precision:6}{row.mean_tokens:9.1f}{rate:9.1f}{peer:9.1f}"
        f"{row.peer_batch:8}{row.times_tuned:9.2f}{row.times_default:10.2f}"
        f"{row.core_times_tuned:7.2f}{row.core_times_default:6.2f}"
        f"{row.peak_share:9.1%}{row.device_busy_share:7.2f}{row.max_difference:10.1e}"
    )


def as_json(rows: list[Comparison], **facts: Any) -> str:
    """Return the comparisons as JSON, with the machine and other facts."""
    listed = [
        asdict(row) | {"times_tuned": row.times_tuned, "times_default": row.times_default}
        for row in rows
    ]
    return json.dumps(facts | {"machine": machine(), "results": listed}, indent=2)


def machine() -> dict[str, Any]:
    """Return the hardware, the versions and the commit."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
