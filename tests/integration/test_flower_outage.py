"""`rankmill flower` behind a proxy's path, and through a Redis that refuses commands."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer.cluster.flower import Dashboard, serve
from rankmill.broker import app
from rankmill.errors import InputError
from rankmill.ledger.jobs import Ledger
from rankmill.settings import Settings
from tests.support.dashboard import ask, flower
from tests.support.flower_events import BAD, ODD
from tests.support.inputs import wait_for
from tests.support.refusals import refusing

PREFIX = ("--url-prefix", "/ops/flower")


def test_flower_under_a_path_takes_events_again_after_an_outage(
    ledger: Ledger, tmp_path: Path
) -> None:
    with refusing(ledger.redis, "READONLY"), flower(tmp_path, *PREFIX) as address:
        wait_for(lambda: "waiting for Redis" in (tmp_path / "flower.log").read_text())
        time.sleep(5)
        ledger.redis.replicaof("NO", "ONE")
        wait_for(lambda: _sees(address, "late@host"), 15)
        assert ask(f"{address}/workers")[0] == 404


def _sees(address: str, worker: str) -> bool:
    with app().events.default_dispatcher(hostname=worker) as events:
        events.send("worker-online", freq=2, sw_ident="test", sw_ver="1", sw_sys="Linux")
    time.sleep(0.5)
    return worker in ask(f"{address}/ops/flower/metrics")[1]


def test_malformed_events_stop_no_page_and_no_later_event(ledger: Ledger, tmp_path: Path) -> None:
    with flower(tmp_path, *PREFIX) as address:
        wait_for(lambda: _sees(address, "early@host"))
        for content in (*ODD.values(), *BAD.values()):
            assert ledger.redis.publish("/0.celeryev/task.received", content) == 1
        assert _sees(address, "late@host")
        for page in ("workers?json=1", "tasks", "api/tasks", "api/workers", "metrics", "broker"):
            status, _ = ask(f"{address}/ops/flower/{page}")
            assert status == 200, page
        tasks = json.loads(ask(f"{address}/ops/flower/api/tasks")[1])
        assert len(tasks) == 10  # two in one message
    said = (tmp_path / "flower.log").read_text()
    assert said.count("event dropped") == 1 and "Traceback" not in said, said


@pytest.mark.parametrize("path", ["http://host/x", "/a b", "/a?b"])
def test_a_prefix_that_is_not_a_path_is_refused(path: str) -> None:
    dashboard = Dashboard("127.0.0.1", 0, None, allow_control=False, url_prefix=path)
    login = SecretStr("user:a long password")
    with pytest.raises(InputError, match=r"--url-prefix .* is not a path"):
        serve(dashboard, Settings(flower_basic_auth=login))
