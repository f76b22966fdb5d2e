"""sentinel://: a job, beat, Flower and the command line outlive real failovers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.doctor.broker import check_redis
from rankmill.broker import CONTROL_QUEUE
from rankmill.settings import settings
from tests.support.bare_flower import flower
from tests.support.command import rankmill
from tests.support.inputs import wait_for
from tests.support.outages import Cluster, cluster
from tests.support.sentinels import PASSWORD, SENTINEL_PASSWORD, Watched, watched_redis


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, watched_redis(Path(folder)) as servers:
        yield servers


@pytest.fixture(scope="module")
def waiting(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), watched.environment) as built:
        yield built


@pytest.mark.long
def test_a_job_outlives_a_planned_failover(
    watched: Watched, waiting: Cluster, tmp_path: Path
) -> None:
    job = waiting.job_under_way(tmp_path)
    watched.fail_over()
    waiting.check_went_on(job)


def test_a_job_outlives_a_killed_primary(
    watched: Watched, waiting: Cluster, tmp_path: Path
) -> None:
    job = waiting.job_under_way(tmp_path)
    before = watched.primary()
    watched.kill_primary()
    wait_for(lambda: watched.primary() != before, 30)
    waiting.check_went_on(job)
    done = rankmill("jobs")
    assert done.returncode == 0 and job.job_id in done.stdout, done.stderr


def test_flower_reads_the_primary_and_shows_no_password(waiting: Cluster, tmp_path: Path) -> None:
    with flower(tmp_path) as dashboard:
        wait_for(lambda: any(dashboard.json("/api/workers?refresh=1").values()), 60)
        (name, *_) = dashboard.json("/api/workers")
        pages = [dashboard.text(path) for path in ("/broker", "/workers", f"/worker/{name}")]
        pages.append(dashboard.text("/api/workers?refresh=1"))
    assert CONTROL_QUEUE in pages[0]
    logs = [path.read_text() for path in (*tmp_path.glob("*.log"), *waiting.folder.glob("*.log"))]
    for secret in (PASSWORD, PASSWORD.replace("/", "%2F"), SENTINEL_PASSWORD):
        assert secret not in json.dumps([*pages, *logs])


def test_doctor_finds_the_primary(watched: Watched, waiting: Cluster) -> None:
    found = {each.name: each.state for each in check_redis(settings())}
    assert found["redis"] == "ok" and "redis writes" not in found
