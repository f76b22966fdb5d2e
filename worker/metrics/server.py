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
from rankmill.metrics import Metric
from rankmill.settings import Settings
from worker.health import complaint
from worker.liveness.card_watch import CardWatch
from worker.liveness.files import counters_path, own_folder
from worker.liveness.heartbeat import WorkerHeartbeat

log = get_logger(__name__)


def serve(heartbeat: WorkerHeartbeat, settings: Settings, watch: CardWatch | None = None) -> None:
    """Serve from now on, before there is a child, if the settings name a port.

    A worker whose port is taken logs that and scores without metrics.

    Args:
        heartbeat: of this process, a worker's main one.
        settings: name the port.
        watch: of the worker's GPU; None without one.
    """
    if not settings.metrics_port:
        return
    try:
        files = counters_path(own_folder(settings), heartbeat.record.process.pid)
        files.mkdir(mode=0o700)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(files))
        registry.register(_OwnMetrics(heartbeat, settings))
        if watch is not None:
            registry.register(CardMetrics(watch))
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
            yield _gauge(metric, label_values, value)


class CardMetrics(Collector):
    """The metrics of the worker's GPU, from the latest answer of NVML."""

    def __init__(self, watch: CardWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what is known now, without asking NVML."""
        answer, card = self._watch.answer, self._watch.card
        yield _gauge(metrics.GPU_UP, (), 0.0 if card is None else 1.0)
        if card is None:
            return
        named = (card.uuid, card.name or "", answer.driver or "", answer.cuda or "")
        yield _gauge(metrics.GPU_INFO, named, 1.0)
        for metric, value in (
            (metrics.GPU_UTILIZATION, card.utilization),
            (metrics.GPU_MEMORY_USED, card.used_bytes),
            (metrics.GPU_MEMORY_TOTAL, card.total_bytes),
            (metrics.GPU_TEMPERATURE, card.temperature_c),
            (metrics.GPU_ECC_ERRORS, card.ecc_errors),
        ):
            if value is not None:
                yield _gauge(metric, (), value)


def _gauge(metric: Metric, label_values: tuple[str, ...], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    family.add_metric(label_values, value)
    return family
