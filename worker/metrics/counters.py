"""Count the work of a worker's child, in files that outlive it where metrics are served.

The main process serves the sum over the files. Each slot of the pool has its own files, whatever
process fills it. So a new child continues the counts of a killed one.
"""

from __future__ import annotations

import os
from collections import Counter as Tally
from functools import lru_cache
from typing import Literal

import psutil
from billiard.process import current_process
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from rankmill import metrics
from rankmill.contract.results import Scoring, ShardReport
from rankmill.logs import get_logger
from rankmill.metrics import Metric
from rankmill.settings import settings
from worker.engine.stats import BatchRun, ScorerStats
from worker.liveness.files import counters_path, folder

log = get_logger(__name__)

Outcome = Literal["scored", "lost", "declined", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("scored", "lost", "declined", "failed")


class Meters:
    """The counters, gauges and histograms of `metrics.OF_CHILD`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._histograms: dict[Metric, Histogram] = {}
        for each in metrics.OF_CHILD:
            about = (each.name, each.meaning, each.labels)
            if each.kind == "counter":
                self._counters[each] = Counter(*about, registry=registry)
            elif each.kind == "gauge":
                # The children of a worker share a device: the latest value counts.
                mode: Literal["livemostrecent"] = "livemostrecent"
                gauge = Gauge(*about, registry=registry, multiprocess_mode=mode)
                self._gauges[each] = gauge
            else:
                histogram = Histogram(*about, registry=registry, buckets=each.buckets)
                self._histograms[each] = histogram
        # A counter must be seen at 0, or its first step does not count as an increase.
        for outcome in OUTCOMES:
            self._counters[metrics.SHARDS].labels(outcome)
        for reason in metrics.REASONS:
            self._counters[metrics.REJECTS].labels(reason)

    def batch(self, run: BatchRun) -> None:
        """Count a batch: its time, and its tokens as a share of the budget."""
        self._histograms[metrics.FORWARD_SECONDS].observe(run.busy_s)
        self._histograms[metrics.BATCH_FILL].observe(run.n_tokens / run.max_tokens)

    def scored(self, before: ScorerStats, after: ScorerStats) -> None:
        """Count the work of a scorer between two snapshots of its totals."""
        for metric, amount in (
            (metrics.PAIRS, after.n_pairs - before.n_pairs),
            (metrics.UNIQUE_PAIRS, after.n_unique_pairs - before.n_unique_pairs),
            (metrics.TOKENS, after.n_tokens - before.n_tokens),
            (metrics.TRUNCATED, after.n_truncated - before.n_truncated),
            (metrics.BUSY_SECONDS, after.device_busy_s - before.device_busy_s),
            (metrics.SCORING_SECONDS, after.wall_s - before.wall_s),
            (metrics.STARVED_SECONDS, after.starved_s - before.starved_s),
        ):
            self._counters[metric].inc(max(0.0, amount))

    def shard(self, outcome: Outcome) -> None:
        """Count a shard that has ended."""
        self._counters[metrics.SHARDS].labels(outcome).inc()

    def report(self, report: ShardReport) -> None:
        """Count the time of a finished shard, and its rejects by the class of their reason."""
        self._histograms[metrics.SHARD_SECONDS].observe(report.wall_s)
        by_class: Tally[str] = Tally()
        for reason, n_rows in report.rejects_by_reason.items():
            by_class[metrics.reason_class(reason)] += n_rows
        for name, n_rows in by_class.items():
            self._counters[metrics.REJECTS].labels(name).inc(n_rows)

    def loaded(self) -> None:
        """Count a model that was loaded."""
        self._counters[metrics.MODEL_LOADS].inc()

    def model(self, scoring: Scoring) -> None:
        """Note the model that is loaded, in the place of any other."""
        info = self._gauges[metrics.MODEL_INFO]
        for sample in next(iter(info.collect())).samples:
            info.labels(**sample.labels).set(0)
        revision = scoring.model_revision or ""
        named = (scoring.model_id, revision, scoring.path, scoring.precision, scoring.device)
        info.labels(*named).set(1)

    def memory(self, device: str) -> None:
        """Note how much of the device's memory, or of the process's on CPU, is in use."""
        if device.startswith("cuda"):
            import torch

            kinds = {
                "allocated": torch.cuda.memory_allocated(device),
                "reserved": torch.cuda.memory_reserved(device),
                "total": torch.cuda.mem_get_info(device)[1],
            }
        else:
            held, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
            kinds = {"allocated": held, "reserved": held, "total": total}
        for kind, n_bytes in kinds.items():
            self._gauges[metrics.DEVICE_MEMORY].labels(kind).set(n_bytes)


@lru_cache(maxsize=1)
def meters() -> Meters:
    """Return this process's meters, which count in memory alone where no metrics are served."""
    files = counters_path(folder(settings()), os.getppid())
    values.ValueClass = values.MutexValue
    if files.is_dir():
        slot = getattr(current_process(), "index", 0)
        try:
            for stale in files.glob(f"gauge_*_{slot}.db"):
                stale.unlink()  # of a process before this one, whose memory and model are gone
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)  # its library reads it nowhere else
            values.ValueClass = values.MultiProcessValue(lambda: slot)
            return Meters(CollectorRegistry())
        except OSError as error:
            log.warning("metrics not counted", error=str(error))
            values.ValueClass = values.MutexValue
    return Meters(CollectorRegistry())
