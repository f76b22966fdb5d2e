"""Every metric that Rankmill serves, declared once: docs/metrics.md is made from this.

Names as Prometheus has them: base units, `_total` for what only grows. No label holds a URI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One name; `buckets` are a histogram's upper bounds."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Counted by a worker's child. They begin at 0 with the worker, not with its child.

PAIRS = Metric("rankmill_pairs_total", "counter", "Pairs scored, again where a shard is run again")
UNIQUE_PAIRS = Metric(
    "rankmill_unique_pairs_total",
    "counter",
    "Pairs that the model saw: equal ones of a window once",
)
TOKENS = Metric("rankmill_tokens_total", "counter", "Tokens that the model saw, without padding")
TRUNCATED = Metric("rankmill_truncated_pairs_total", "counter", "Pairs scored whose text was cut")
REJECTS = Metric(
    "rankmill_rejected_pairs_total",
    "counter",
    "Rows of finished shards that could not be scored, by class of reason",
    ("reason",),
)
SHARDS = Metric(
    "rankmill_shards_total",
    "counter",
    "Shards that came to an end here: scored; lost to another worker; failed, or to be tried again",
    ("outcome",),
)
SHARD_SECONDS = Metric(
    "rankmill_shard_seconds",
    "histogram",
    "Seconds from the start of a scored shard to its report",
    buckets=(1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600),
)
FORWARD_SECONDS = Metric(
    "rankmill_forward_seconds",
    "histogram",
    "Seconds that a batch takes on the device",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
BATCH_FILL = Metric(
    "rankmill_batch_fill_ratio",
    "histogram",
    "Tokens of a batch, without padding, as a share of how many it may have",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
BUSY_SECONDS = Metric(
    "rankmill_device_busy_seconds_total", "counter", "Seconds that the device has computed"
)
SCORING_SECONDS = Metric(
    "rankmill_scoring_seconds_total", "counter", "Seconds that a scorer has had work"
)
STARVED_SECONDS = Metric(
    "rankmill_tokenizer_stall_seconds_total",
    "counter",
    "Seconds of scoring in which the next pairs were not yet read and tokenized",
)
DEVICE_MEMORY = Metric(
    "rankmill_device_memory_bytes",
    "gauge",
    "Memory by kind: allocated, reserved and total of a GPU; on a CPU what the process holds "
    "(allocated, reserved) and the machine has (total)",
    ("kind",),
)
MODEL_INFO = Metric(
    "rankmill_model_info",
    "gauge",
    "1 for the model that is loaded",
    ("model", "revision", "path", "precision", "device"),
)

# Told by a worker's main process.

WORKER_INFO = Metric("rankmill_worker_info", "gauge", "1, with the worker's name", ("worker",))
WORKER_HEALTHY = Metric(
    "rankmill_worker_healthy",
    "gauge",
    "What python -m worker.health says of it: 1, or 0 if it hangs",
)

# Told of the cluster by `rankmill exporter`, from Redis.

REDIS_UP = Metric(
    "rankmill_redis_up", "gauge", "Whether Redis answers; if not, the rest is missing"
)
REDIS_USED = Metric("rankmill_redis_memory_used_bytes", "gauge", "Memory that Redis uses")
REDIS_MAX = Metric(
    "rankmill_redis_memory_max_bytes", "gauge", "Memory that Redis may use; 0 is no limit"
)
WORKERS = Metric("rankmill_workers", "gauge", "Workers seen within the last minute")
QUEUE = Metric(
    "rankmill_queue_messages",
    "gauge",
    "Messages that wait, by the priority of their job; none is what belongs to no running job",
    ("queue", "priority"),
)
LATE = Metric(
    "rankmill_late_schedules", "gauge", "Schedules whose run will miss its deadline, or has"
)
JOBS = Metric("rankmill_jobs", "gauge", "Jobs that are not over")
JOB_INFO = Metric(
    "rankmill_job_info", "gauge", "1 for a job that is not over", ("job_id", "state", "priority")
)
JOB_PAIRS = Metric("rankmill_job_pairs", "gauge", "Rows of a job's input", ("job_id",))
JOB_DONE = Metric(
    "rankmill_job_pairs_done", "gauge", "Of those, scored or rejected, or prepared", ("job_id",)
)
JOB_REJECTED = Metric(
    "rankmill_job_rejected_pairs", "gauge", "Of those, rejected by finished shards", ("job_id",)
)
JOB_SHARDS = Metric(
    "rankmill_job_shards",
    "gauge",
    "Shards of a job by state: unsent, queued (sent, with no worker), running, done",
    ("job_id", "state"),
)
JOB_WAITING = Metric(
    "rankmill_job_oldest_waiting_shard_seconds",
    "gauge",
    "Since when the shard has waited that was sent first of those with no worker; 0 without such",
    ("job_id",),
)

# Made of them by docker/prometheus/rules.yml.

JOB_RATE = Metric("rankmill:job_pairs:rate5m", "gauge", "A job's pairs per second", ("job_id",))
JOB_ETA = Metric(
    "rankmill:job_eta:seconds", "gauge", "Until a job's last pair, at that rate", ("job_id",)
)

OF_CHILD = (
    *(PAIRS, UNIQUE_PAIRS, TOKENS, TRUNCATED, REJECTS, SHARDS, SHARD_SECONDS, FORWARD_SECONDS),
    *(BATCH_FILL, BUSY_SECONDS, SCORING_SECONDS, STARVED_SECONDS, DEVICE_MEMORY, MODEL_INFO),
)
OF_WORKER = (*OF_CHILD, WORKER_INFO, WORKER_HEALTHY)
OF_CLUSTER = (
    *(REDIS_UP, REDIS_USED, REDIS_MAX, WORKERS, QUEUE, JOBS, JOB_INFO, JOB_PAIRS, JOB_DONE),
    *(JOB_REJECTED, JOB_SHARDS, JOB_WAITING, LATE),
)
OF_RULES = (JOB_RATE, JOB_ETA)

# The classes of reasons that REJECTS tells apart, each with what is said in such a reason; the
# first that fits counts, and `other` is the rest.
REASONS = {
    "null": ("is null", "no candidates"),
    "empty": ("is empty",),
    "not_utf8": ("is not UTF-8",),
    "not_finite": ("is not finite",),
    "too_large": ("too long for the device",),
    "refused": ("refuses it",),
    "kills": ("kills the worker",),
    "damaged": ("is damaged",),
    "missing": ("is not in --",),
    "other": ("",),
}


def reason_class(reason: str) -> str:
    """The class of why a row was rejected; whatever is said, they are few."""
    return next(name for name, said in REASONS.items() if any(part in reason for part in said))
