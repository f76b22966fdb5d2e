"""Declare every metric once; docs/metrics.md is generated from here.

Names follow Prometheus: base units, and `_total` for a counter. No label holds a URI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric; `buckets` are the upper bounds of a histogram."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Served by workers, counted in a worker's child. They start at 0 with the worker, not its child.

PAIRS = Metric(
    "rankmill_pairs_total", "counter", "Scored pairs, counted again if a shard runs again"
)
UNIQUE_PAIRS = Metric(
    "rankmill_unique_pairs_total",
    "counter",
    "Distinct pairs of each window, which the model scored",
)
TOKENS = Metric("rankmill_tokens_total", "counter", "Tokens that the model scored, without padding")
TRUNCATED = Metric("rankmill_truncated_pairs_total", "counter", "Scored pairs with truncated text")
REJECTS = Metric(
    "rankmill_rejected_pairs_total",
    "counter",
    "Rejected rows of finished shards, by class of reason",
    ("reason",),
)
SHARDS = Metric(
    "rankmill_shards_total",
    "counter",
    "Shards that ended here: scored, lost to another worker, declined for another host, failed "
    "or to be retried",
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
    "Seconds of one batch on the device",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
BATCH_FILL = Metric(
    "rankmill_batch_fill_ratio",
    "histogram",
    "Tokens of a batch, without padding, divided by the maximum",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
BUSY_SECONDS = Metric(
    "rankmill_device_busy_seconds_total", "counter", "Seconds in which the device computed"
)
SCORING_SECONDS = Metric(
    "rankmill_scoring_seconds_total", "counter", "Seconds in which a scorer had work"
)
STARVED_SECONDS = Metric(
    "rankmill_tokenizer_stall_seconds_total",
    "counter",
    "Seconds of scoring spent waiting for the next pairs to be read and tokenized",
)
DEVICE_MEMORY = Metric(
    "rankmill_device_memory_bytes",
    "gauge",
    "Memory by kind. GPU: allocated, reserved, total. CPU: the process's (allocated, reserved) and "
    "the machine's (total)",
    ("kind",),
)
MODEL_INFO = Metric(
    "rankmill_model_info",
    "gauge",
    "1 for the loaded model",
    ("model", "revision", "path", "precision", "device"),
)
MODEL_LOADS = Metric(
    "rankmill_model_loads_total", "counter", "Models loaded; jobs of one model share its weights"
)

# Served by workers, from the main process.

WORKER_INFO = Metric(
    "rankmill_worker_info", "gauge", "1, labelled with the worker's name", ("worker",)
)
WORKER_HEALTHY = Metric(
    "rankmill_worker_healthy",
    "gauge",
    "1 if python -m worker.health passes, 0 if the worker hangs",
)
WORKER_DECLINES = Metric(
    "rankmill_worker_declines",
    "gauge",
    "1 if the worker has declined work in the last five minutes, or its host lacks something",
)

# Served by workers with a GPU that NVML describes, from the main process.

GPU_UP = Metric(
    "rankmill_gpu_up",
    "gauge",
    "1 if NVML answers about the worker's GPU; if 0, the other metrics of the GPU are missing",
)
GPU_INFO = Metric(
    "rankmill_gpu_info",
    "gauge",
    "1 for the worker's GPU or MIG slice",
    ("uuid", "name", "driver", "cuda"),
)
GPU_UTILIZATION = Metric(
    "rankmill_gpu_utilization_ratio",
    "gauge",
    "Share of the last moments in which a kernel ran; not known of a MIG slice",
)
GPU_MEMORY_USED = Metric(
    "rankmill_gpu_memory_used_bytes", "gauge", "Memory in use on the GPU, by any process"
)
GPU_MEMORY_TOTAL = Metric("rankmill_gpu_memory_total_bytes", "gauge", "Memory of the GPU")
GPU_TEMPERATURE = Metric("rankmill_gpu_temperature_celsius", "gauge", "Temperature of the GPU")
GPU_ECC_ERRORS = Metric(
    "rankmill_gpu_ecc_errors",
    "gauge",
    "Uncorrected errors of the GPU's memory since the driver was loaded",
)

# Served by `rankmill exporter` about the cluster, from Redis.

REDIS_UP = Metric(
    "rankmill_redis_up", "gauge", "1 if Redis answers; if 0, the other metrics are missing"
)
REDIS_USED = Metric("rankmill_redis_memory_used_bytes", "gauge", "Memory used by Redis")
REDIS_MAX = Metric(
    "rankmill_redis_memory_max_bytes", "gauge", "Memory limit of Redis, 0 for no limit"
)
WORKERS = Metric("rankmill_workers", "gauge", "Workers with a heartbeat in the last minute")
LOST_WORKERS = Metric(
    "rankmill_lost_workers",
    "gauge",
    "Scoring workers that died within the last hour; stopped ones do not count",
)
QUEUE = Metric(
    "rankmill_queue_messages",
    "gauge",
    "Queued messages by priority of their job; priority none: of no running job",
    ("queue", "priority"),
)
LATE = Metric(
    "rankmill_late_schedules",
    "gauge",
    "Schedules whose run has missed its deadline or will miss it",
)
BROKEN = Metric(
    "rankmill_broken_entries",
    "gauge",
    "Entries in Redis with a wrong type or value; the exporter's log names them",
)
JOBS = Metric("rankmill_jobs", "gauge", "Unfinished jobs")
JOB_INFO = Metric(
    "rankmill_job_info", "gauge", "1 for an unfinished job", ("job_id", "state", "priority")
)
JOB_PAIRS = Metric("rankmill_job_pairs", "gauge", "Rows of a job's input", ("job_id",))
JOB_DONE = Metric(
    "rankmill_job_pairs_done",
    "gauge",
    "Rows of a job that are scored, rejected or prepared",
    ("job_id",),
)
JOB_REJECTED = Metric(
    "rankmill_job_rejected_pairs",
    "gauge",
    "Rows of a job that finished shards rejected",
    ("job_id",),
)
JOB_SHARDS = Metric(
    "rankmill_job_shards",
    "gauge",
    "Shards of a job by state: unsent, queued (sent, not started), running, done",
    ("job_id", "state"),
)
JOB_WAITING = Metric(
    "rankmill_job_oldest_waiting_shard_seconds",
    "gauge",
    "Age of the oldest queued shard of a job, 0 if none",
    ("job_id",),
)

# Recorded by the rules of docker/prometheus/rules.yml.

JOB_RATE = Metric("rankmill:job_pairs:rate5m", "gauge", "A job's pairs per second", ("job_id",))
JOB_ETA = Metric(
    "rankmill:job_eta:seconds",
    "gauge",
    "Seconds until a job's last pair at its present rate",
    ("job_id",),
)

OF_CHILD = (
    *(PAIRS, UNIQUE_PAIRS, TOKENS, TRUNCATED, REJECTS, SHARDS, SHARD_SECONDS, FORWARD_SECONDS),
    *(BATCH_FILL, BUSY_SECONDS, SCORING_SECONDS, STARVED_SECONDS, DEVICE_MEMORY, MODEL_INFO),
    MODEL_LOADS,
)
OF_WORKER = (*OF_CHILD, WORKER_INFO, WORKER_HEALTHY, WORKER_DECLINES)
OF_GPU = (
    *(GPU_UP, GPU_INFO, GPU_UTILIZATION, GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_TEMPERATURE),
    GPU_ECC_ERRORS,
)
OF_CLUSTER = (
    *(REDIS_UP, REDIS_USED, REDIS_MAX, WORKERS, LOST_WORKERS, QUEUE, JOBS, JOB_INFO, JOB_PAIRS),
    *(JOB_DONE, JOB_REJECTED, JOB_SHARDS, JOB_WAITING, LATE, BROKEN),
)
OF_RULES = (JOB_RATE, JOB_ETA)

# The values of the label `reason` of REJECTS, each with texts that such a reason contains. The
# first match counts.
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
    """Return the class of a reject's reason; there are few, so that the label has few values."""
    return next(name for name, parts in REASONS.items() if any(part in reason for part in parts))
