"""The metrics that a worker or the exporter serves."""

from __future__ import annotations

import math
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from producer.cluster.local import running
from rankmill.metrics import Metric
from tests.support.inputs import wait_for
from tests.support.redis_server import free_port

Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(port: int) -> Samples:
    """Return values by metric and label values; nothing where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


def one(samples: Samples, metric: Metric, *labels: str, suffix: str = "") -> float:
    """Return a sample's value, or NaN, which compares as neither more nor less nor equal."""
    return samples.get(metric.name + suffix, {}).get(labels, math.nan)


@contextmanager
def exporting(log: Path) -> Iterator[int]:
    """Run the exporter until the end of the block; yields its port."""
    port = free_port()
    environment = {"RANKMILL_METRICS_PORT": str(port)}
    command = [sys.executable, "-m", "producer.cli", "exporter"]
    with running(command, environment, log):
        wait_for(lambda: scrape(port))
        yield port
