"""Add up a job's shard reports one by one, in memory that does not grow much with the job."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from rankmill.contract.histogram import HistogramSum
from rankmill.contract.results import Agreement, Scoring, ShardReport
from rankmill.report.changes import Changes
from rankmill.spans import covered_s

_TIME_BUCKETS = 120
_MAX_REJECTING = 20
_SUMMED = (
    *("n_rows", "n_scored", "n_rejected", "n_written", "n_query_groups", "n_tokens"),
    *("n_truncated", "n_duplicates", "n_reused", "n_deaths", "n_retries"),
)


@dataclass
class WorkerTally:
    """The sums of one worker process; `wall_s` are the seconds in which it ran a shard."""

    name: str
    number: int
    n_shards: int = 0
    n_rows: int = 0
    wall_s: float = 0.0
    busy_s: float = 0.0

    @property
    def pairs_per_s(self) -> float:
        """Rows per second while it ran a shard."""
        return self.n_rows / self.wall_s if self.wall_s else 0.0

    @property
    def busy_share(self) -> float:
        """The share of `wall_s` in which the device computed."""
        return self.busy_s / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True)
class Throughput:
    """The rows per second of each worker over time.

    Attributes:
        seconds: float64 (n + 1,), ends of the time buckets since the first shard began.
        rates: float64 (n_workers, n), in the order of `Tally.workers`.
    """

    seconds: np.ndarray
    rates: np.ndarray


@dataclass
class Tally:
    """The sums over all added reports."""

    n_shards: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    workers: dict[str, WorkerTally] = field(default_factory=dict)
    scoring: dict[str, Scoring] = field(default_factory=dict)
    agreement: Agreement | None = None
    no_reuse: str | None = None
    scores: HistogramSum = field(default_factory=HistogramSum)
    logits: HistogramSum = field(default_factory=HistogramSum)
    lengths: HistogramSum = field(default_factory=HistogramSum)
    changes: Changes = field(default_factory=Changes)
    rejecting: list[int] = field(default_factory=list)
    last_at: float | None = None
    _spans: array[float] = field(default_factory=lambda: array("d"))

    def add(self, report: ShardReport) -> None:
        """Add one shard's report."""
        self.n_shards += 1
        for name in _SUMMED:
            self.totals[name] += getattr(report, name)
        self.totals["n_troubled"] += bool(report.n_deaths or report.n_retries)
        self.rejects.update(report.rejects_by_reason)
        self.scoring.setdefault(report.scoring.model_dump_json(), report.scoring)
        self.agreement = self.agreement or report.agreement
        self.no_reuse = self.no_reuse or report.no_reuse
        if report.scores is not None and report.lengths is not None:
            self.scores.add(report.scores)
            self.lengths.add(report.lengths)
        if report.logits is not None:
            self.logits.add(report.logits)
        if report.reordering is not None:
            self.changes.add(report.reordering)
        if report.n_rejected and len(self.rejecting) < _MAX_REJECTING:
            self.rejecting.append(report.shard_index)
        worker = self.workers.setdefault(
            report.worker, WorkerTally(report.worker, len(self.workers))
        )
        worker.n_shards += 1
        worker.n_rows += report.n_rows
        worker.wall_s += report.wall_s
        worker.busy_s += report.device_busy_s
        if report.finished_at is not None:
            stop = report.finished_at.timestamp()
            self._spans.extend((worker.number, report.n_rows, stop - report.wall_s, stop))
            self.last_at = max(self.last_at or stop, stop)

    @property
    def wall_s(self) -> float:
        """The seconds in which workers ran shards, added up."""
        return sum(worker.wall_s for worker in self.workers.values())

    @property
    def busy_share(self) -> float:
        """The share of `wall_s` in which devices computed."""
        busy_s = sum(worker.busy_s for worker in self.workers.values())
        return busy_s / self.wall_s if self.wall_s else 0.0

    @property
    def scoring_s(self) -> float:
        """The seconds in which at least one shard ran; 0 if no shard recorded when it ended."""
        starts, ends = self._spans[2::4], self._spans[3::4]
        return covered_s(zip(starts, ends, strict=True))

    def throughput(self) -> Throughput | None:
        """Return rows per second over time, or None if no shard recorded when it ended.

        A shard's rows are spread evenly over its time.
        """
        if not self._spans:
            return None
        numbers, n_rows, starts, stops = np.array(self._spans).reshape(-1, 4).T
        begin, end = starts.min(), stops.max()
        seconds = np.linspace(0, max(end - begin, 1e-3), _TIME_BUCKETS + 1)
        took = np.maximum(stops - starts, 1e-9)
        done = np.empty((len(self.workers), len(seconds)))
        for at, second in enumerate(seconds):
            share = np.clip((begin + second - starts) / took, 0, 1)
            done[:, at] = np.bincount(numbers.astype(np.int64), n_rows * share, len(done))
        return Throughput(seconds, np.diff(done, axis=1) / np.diff(seconds))
