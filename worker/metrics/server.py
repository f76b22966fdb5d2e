"""Serve a worker's metrics over HTTP from its main process, which outlives its children."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from rankmill import metrics
from rankmill.errors import RankmillError
from rankmill.logs import get_logger
from rankmill.settings import Settings
from worker.health import complaint
from worker.liveness.files import counters_path, own_folder
from worker.liveness.heartbeat import WorkerHeartbeat

log = get_logger(__name__)


def serve(heartbeat: WorkerHeartbeat, settings: Settings) -> None:
    """Serve from now on, before there is a child, if the settings name a port.

    A worker whose port is taken logs that and scores without metrics.
    """
    if not settings.metrics_port:
        return
    try:
        files = counters_path(own_folder(settings), heartbeat.record.process.pid)
        files.mkdir(mode=0o700)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(files))
        registry.register(_OwnMetrics(heartbeat, settings))
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except (RankmillError, OSError) as error:
        log.error(
            "metrics not served; give each worker of a machine its own RANKMILL_METRICS_PORT",
            host=settings.metrics_host,
            port=settings.metrics_port,
            error=str(error),
        )


class _OwnMetrics(Collector):
    """The metrics of the main process itself: its name and its health."""

    def __init__(self, heartbeat: WorkerHeartbeat, settings: Settings) -> None:
        self._heartbeat = heartbeat
        self._settings = settings

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sign = self._heartbeat.record
        wrong = complaint(own_folder(self._settings), sign, self._settings.stall_s)
        for metric, label_values, value in (
            (metrics.WORKER_INFO, (sign.name,), 1.0),
            (metrics.WORKER_HEALTHY, (), 0.0 if wrong else 1.0),
            (metrics.WORKER_DECLINES, (), 1.0 if sign.declines else 0.0),
        ):
            family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            family.add_metric(label_values, value)
            yield family
