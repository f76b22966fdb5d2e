"""Measure the memory that a model takes: its weights, then its batches."""

from __future__ import annotations

import gc
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from bench.engine.sides import Pairs
from bench.gpu.checkpoints import n_parameters
from bench.gpu.guard import failures_as_rows
from bench.gpu.rows import Budget, Rows
from bench.gpu.speed import score
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

_PAGE_BYTES = 4096


def measure_memory(
    folder: Path,
    pairs: Pairs,
    *,
    device: str,
    precisions: list[Precision],
    rows: Rows,
    budget: Budget,
) -> None:
    """Write the memory in use before loading, after it, and at most while pairs are scored."""
    for precision in precisions:
        what = f"memory in {precision}"
        if not budget.allows(what, 0):
            continue
        with failures_as_rows(rows, what, device):
            _measure(folder, pairs, device, precision, rows)
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


def _measure(folder: Path, pairs: Pairs, device: str, precision: Precision, rows: Rows) -> None:
    before, began = in_use(device), time.perf_counter()
    scorer = Scorer.load(folder, device=device, precision=precision)
    loaded, load_s = in_use(device), time.perf_counter() - began
    score(scorer, pairs)
    peak = in_use(device) if device == "cpu" else torch.cuda.max_memory_allocated(device)
    total = None if device == "cpu" else torch.cuda.mem_get_info(device)[1]
    arithmetic = None
    if find_spec("pydantic"):  # the worker's own check before it loads a model
        from worker.fit import Size

        arithmetic = Size.of(folder).weights_bytes(scorer.info.precision)
    rows.write(
        "memory",
        precision=scorer.info.precision,
        path=scorer.info.path,
        n_parameters=n_parameters(folder),
        before_bytes=before,
        weights_bytes_by_arithmetic=arithmetic,
        loaded_bytes=loaded,
        peak_bytes=peak,
        total_bytes=total,
        max_batch_tokens=scorer.max_batch_tokens,
        load_s=load_s,
    )


def in_use(device: str) -> int:
    """Return the bytes of tensors on a GPU; on a CPU the resident memory of this process."""
    if device != "cpu":
        return torch.cuda.memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
