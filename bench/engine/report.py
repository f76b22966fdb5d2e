"""The results of a benchmark of the engine: one row a comparison, as Markdown or as JSON."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.engine.comparison import Comparison
from rankmill.devices.cores import n_usable_cores
from worker.engine.compiled.library import library

_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "openvino",
    "nncf",
    "onnxruntime",
)
_HEAD = (
    "model",
    "mix",
    "tokens a pair",
    "precision",
    "pairs/s",
    "times best peer",
    "(CPU time)",
    "best peer, batch",
    "times tuned torch",
    "of the peak",
    "largest logit difference",
)


def silence_transformers() -> None:
    """Keep warnings and progress bars of transformers out of a table."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def table(rows: list[Comparison]) -> str:
    """Return the comparisons as a table in Markdown."""
    lines = [_HEAD, ("---",) * len(_HEAD), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Comparison) -> tuple[str, ...]:
    best, torch_peer = row.best_peer, row.peers[0]
    return (
        row.model,
        row.mix,
        f"{row.mean_tokens:.0f}",
        row.precision,
        f"{row.n_pairs / row.engine.wall_s:,.1f}",
        f"{row.times(best):.2f}",
        f"{row.core_times_best:.2f}",
        f"{best.name}, {best.batch}",
        f"{row.times(torch_peer):.2f}",
        f"{row.peak_share:.0%}",
        f"{row.engine.max_difference:.1e}",
    )


def sides_table(rows: list[Comparison]) -> str:
    """Return each side's pairs a second, of the clock and of a core, as a table in Markdown."""
    names = list(dict.fromkeys(peer.name.rpartition(" ")[0] for row in rows for peer in row.peers))
    head = ("model", "mix", "precision", "Rankmill", *names)
    lines = [head, ("---",) * len(head)]
    for row in rows:
        found = {peer.name.rpartition(" ")[0]: peer for peer in row.peers}
        rates = [
            f"{row.n_pairs / peer.wall_s:,.1f} ({peer.batch})" if peer else "-"
            for peer in map(found.get, names)
        ]
        engine = f"{row.n_pairs / row.engine.wall_s:,.1f}"
        lines.append((row.model, row.mix, row.precision, engine, *rates))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows: list[Comparison], **facts: Any) -> str:
    """Return the comparisons as JSON, with the machine and other facts."""
    listed = [
        asdict(row)
        | {
            "best_peer": row.best_peer.name,
            "times_best_peer": row.times(row.best_peer),
            "core_times_best_peer": row.core_times_best,
            "times_torch": row.times(row.peers[0]),
        }
        for row in rows
    ]
    return json.dumps(facts | {"machine": machine(), "results": listed}, indent=2)


def machine() -> dict[str, Any]:
    """Return the hardware, the versions and the commit."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu": _cpu_name(),
        "cores": n_usable_cores(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.name if (kernels := library()) else None,
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
    """Return the commit; None where there is no git, or no repository."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(
        [git, "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
