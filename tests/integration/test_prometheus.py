"""The shipped rules and dashboard, in promtool and in a real Prometheus that watches a real job."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producer.cluster.local import running
from producer.jobs.submit import submit
from rankmill import metrics
from rankmill.settings import CHECKOUT
from tests.conftest import StartWorker
from tests.support.inputs import pairs, wait_for, write
from tests.support.metrics import exporting, scrape
from tests.support.programs import program
from tests.support.redis_server import free_port

RULES = CHECKOUT / "docker" / "prometheus" / "rules.yml"


def promtool(*arguments: object) -> str:
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_passes_the_configuration_and_each_alert_fires_in_its_fault() -> None:
    promtool("check", "config", RULES.with_name("prometheus.yml"))
    promtool("test", "rules", RULES.with_name("rules_test.yml"))
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    fire = re.findall(
        r"alertname: (\w+)\n +exp_alerts", RULES.with_name("rules_test.yml").read_text()
    )
    assert alerts == set(fire)


def test_rules_and_dashboard_name_only_metrics_that_there_are() -> None:
    every = (*metrics.OF_WORKER, *metrics.OF_GPU, *metrics.OF_CLUSTER, *metrics.OF_RULES)
    declared = {each.name for each in every}
    for path in (RULES, *(CHECKOUT / "docker" / "grafana" / "dashboards").glob("*.json")):
        named = set(re.findall(r"rankmill[:_][a-z0-9_:]+", path.read_text()))
        assert named, path
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= declared


@contextmanager
def prometheus(folder: Path, worker_port: int, exporter_port: int) -> Iterator[str]:
    """Scrapes each second, with the shipped rules; yields its URL."""
    port = free_port()
    targets = {"rankmill-worker": worker_port, "rankmill-exporter": exporter_port}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    command = [
        program("prometheus"),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, {}, folder / "prometheus.log"):
        yield f"http://127.0.0.1:{port}"


def value(url: str, query: str) -> list[float]:
    """Of each series that a query finds; none where Prometheus is not up yet."""
    asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return [float(each["value"][1]) for each in found]


def test_every_query_finds_data_while_a_job_runs(
    tmp_path: Path,
    model_folder: Path,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker_port = free_port()
    monkeypatch.setenv("RANKMILL_WINDOW_PAIRS", "64")
    rows = pairs(2000, 100)  # more than can be over before all is seen
    rows[3]["document"] = None
    source = write(rows, tmp_path / "in.parquet")
    with monkeypatch.context() as patched:
        patched.setenv("RANKMILL_METRICS_PORT", str(worker_port))
        worker = start_worker()
    with (
        exporting(tmp_path / "exporter.log") as exporter_port,
        prometheus(tmp_path, worker_port, exporter_port) as url,
    ):
        wait_for(lambda: value(url, "rankmill_shards_total"))
        job = submit(source, tmp_path / "out", model_id=str(model_folder), shard_pairs=128)
        check = [sys.executable, str(CHECKOUT / "docker" / "grafana" / "check.py"), url]

        def shown() -> bool:
            assert not job.status().state.is_final, "the job was over too soon"
            done = subprocess.run(check, capture_output=True, text=True, timeout=60)
            said.append(done.stdout)
            return done.returncode == 0

        said: list[str] = []
        try:
            wait_for(shown, 90)
        except AssertionError:
            raise AssertionError(said[-1]) from None
        declared = (*metrics.OF_WORKER, *metrics.OF_CLUSTER, *metrics.OF_RULES)
        for metric in declared:
            name = metric.name + ("_count" if metric.kind == "histogram" else "")
            wait_for(lambda name=name: value(url, name), 10)
        wait_for(lambda: value(url, "rankmill_job_pairs_done") > [0], 10)
        worker.kill()
        wait_for(lambda: value(url, 'ALERTS{alertname="RankmillNotScraped"}'))
        with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=10) as answer:
            rules = json.load(answer)["data"]["groups"][0]["rules"]
    assert len(rules) == 16 and all(rule["health"] == "ok" for rule in rules)
    assert scrape(worker_port) == {}
