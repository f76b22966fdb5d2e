"""While Redis refuses commands, workers and beat wait; then they go on by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.cluster.local import start_redis
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.support.outages import NAMES, Cluster, cluster
from tests.support.refusals import REFUSALS, refusing

OUTAGE_S = 2.5
SHORT = ("OOM", "READONLY")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with start_redis() as (url, _), cluster(folder, {"RANKMILL_BROKER_URL": url}) as built:
        yield built


@pytest.mark.parametrize(
    "how",
    [each if each in SHORT else pytest.param(each, marks=pytest.mark.long) for each in REFUSALS],
)
def test_a_job_goes_on_by_itself(waiting: Cluster, tmp_path: Path, how: str) -> None:
    job = waiting.job_under_way(tmp_path)
    with refusing(Ledger.connect(settings()).redis, how):
        time.sleep(OUTAGE_S)
    waiting.check_went_on(job)
    assert all(map(waiting.has_waited, NAMES))
