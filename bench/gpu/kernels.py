"""Write which kernels a model's forwards spend their time in, as torch's profiler sees them."""

from __future__ import annotations

from pathlib import Path

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.engine.sides import Pairs
from bench.gpu.guard import failures_as_rows
from bench.gpu.rows import Budget, Rows
from bench.gpu.speed import score
from worker.engine.kernels.precision import Precision
from worker.engine.scorer import Scorer

_MOST = 20


def measure_kernels(
    folder: Path, pairs: Pairs, *, device: str, precision: Precision, rows: Rows, budget: Budget
) -> None:
    """Write the kernels of a GPU, or the operators of a CPU, that take most of the time.

    Shares are of the time of all of them, without the gaps in between.
    """
    budget.allows("kernels", 0)
    is_cpu = device == "cpu"
    activity = ProfilerActivity.CPU if is_cpu else ProfilerActivity.CUDA
    with failures_as_rows(rows, "kernels", device):
        scorer = Scorer.load(folder, device=device, precision=precision)
        score(scorer, pairs)
        with profile(activities=[activity]) as profiled:
            score(scorer, pairs)
        kind = DeviceType.CPU if is_cpu else DeviceType.CUDA
        took = {
            event.key: (
                event.self_cpu_time_total if is_cpu else event.self_device_time_total,
                event.count,
            )
            for event in profiled.key_averages()
            if event.device_type == kind
        }
        total = sum(microseconds for microseconds, _ in took.values())
        for name in sorted(took, key=lambda each: -took[each][0])[:_MOST]:
            seconds, count = took[name][0] / 1e6, took[name][1]
            share = took[name][0] / total
            rows.write("kernel", name=name, share=share, calls=count, seconds=seconds)
