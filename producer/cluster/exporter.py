"""The cluster's metrics over HTTP: one process for all workers, which asks Redis at each scrape.

A second exporter is harmless: both report the same under different instances.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from producer.cluster.snapshot import Survey, Surveyor
from rankmill import logs, metrics
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import connect
from rankmill.ledger.server import check_at_start
from rankmill.logs import get_logger
from rankmill.metrics import Metric
from rankmill.settings import Settings

log = get_logger(__name__)

DEFAULT_PORT = 9808

Sample = tuple[tuple[str, ...], float]


def serve(settings: Settings) -> None:
    """Serve until interrupted.

    Raises:
        InputError: the port is in use, or the address is not one of this machine; Redis is
            a cluster.
    """
    logs.set_up(settings)
    check_at_start(connect(settings))
    port = settings.metrics_port or DEFAULT_PORT
    registry = CollectorRegistry()
    registry.register(ClusterMetrics(Surveyor.connect(settings)))
    try:
        start_http_server(port, settings.metrics_host, registry)
    except OSError as error:
        raise InputError(
            f"cannot serve metrics at {settings.metrics_host}:{port}: {error}; set "
            "RANKMILL_METRICS_PORT and RANKMILL_METRICS_HOST"
        ) from error
    threading.Event().wait()


class ClusterMetrics(Collector):
    """The metrics of `metrics.OF_CLUSTER`, read again at each scrape."""

    def __init__(self, surveyor: Surveyor) -> None:
        self._surveyor = surveyor
        self._lock = threading.Lock()  # one scrape at a time

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics without samples, so that registering does not ask Redis."""
        return [_family(metric, ()) for metric in metrics.OF_CLUSTER]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the samples; without Redis only that it is down."""
        with self._lock:
            try:
                survey = self._surveyor.survey()
            except BrokerUnavailable as error:
                log.warning("cluster metrics not available", error=error)
                yield _family(metrics.REDIS_UP, [((), 0)])
                return
        for metric, samples in _samples(survey).items():
            yield _family(metric, samples)


def _samples(survey: Survey) -> dict[Metric, list[Sample]]:
    samples: dict[Metric, list[Sample]] = {
        metrics.REDIS_UP: [((), 1)],
        metrics.REDIS_USED: [((), survey.memory_used)],
        metrics.REDIS_MAX: [((), survey.memory_max)],
        metrics.WORKERS: [((), survey.n_workers)],
        metrics.LOST_WORKERS: [((), survey.n_lost_workers)],
        metrics.QUEUE: [(key, n_messages) for key, n_messages in survey.queues.items()],
        metrics.JOBS: [((), survey.n_jobs)],
        metrics.LATE: [((), survey.n_late)],
        metrics.BROKEN: [((), survey.n_broken)],
    }
    for job in survey.jobs:
        counts = job.counts
        name = (counts.job_id,)
        of_job: dict[Metric, list[Sample]] = {
            metrics.JOB_INFO: [((*name, str(counts.state), str(job.priority)), 1)],
            metrics.JOB_PAIRS: [(name, counts.n_rows)],
            metrics.JOB_DONE: [(name, counts.n_pairs_done)],
            metrics.JOB_REJECTED: [(name, counts.n_rejected)],
            metrics.JOB_SHARDS: [((*name, state), n) for state, n in job.shards.items()],
            metrics.JOB_WAITING: [(name, job.oldest_queued_s)],
        }
        for metric, values in of_job.items():
            samples.setdefault(metric, []).extend(values)
    return samples


def _family(metric: Metric, samples: Iterable[Sample]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for label_values, value in samples:
        family.add_metric(label_values, value)
    return family
