"""The broker's password shows nowhere: no error, log, process list or page."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from producer.jobs.submit import submit
from rankmill.broker import app
from rankmill.errors import InputError
from rankmill.ledger.client import connect
from rankmill.settings import settings
from tests.conftest import StartWorker
from tests.support.bare_flower import flower
from tests.support.command import rankmill
from tests.support.inputs import pairs, wait_for, write
from tests.support.redis_server import redis_server

PASSWORD = "s3cr3t"


@pytest.fixture
def use(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_broker(broker_url: str) -> None:
        monkeypatch.setenv("RANKMILL_BROKER_URL", broker_url)
        settings.cache_clear()
        app.cache_clear()

    return set_broker


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_an_unreachable_broker_is_a_line_without_its_password(
    use: Callable[[str], None], tmp_path: Path, scheme: str
) -> None:
    use(f"{scheme}://user:{PASSWORD}@127.0.0.1:9/0")
    source = write(pairs(1, 1), tmp_path / "in.parquet")
    done = rankmill("submit", source, tmp_path / "out", "--model", "null")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    debug = rankmill("jobs", "--debug")
    assert "Traceback" in debug.stderr
    assert PASSWORD not in done.stderr + debug.stdout + debug.stderr


@pytest.mark.parametrize(
    "broker_url",
    [
        f"redis://user:{PASSWORD}@no-such-host.invalid:6379/0",
        f"redis://:{PASSWORD}/x@127.0.0.1:9/0",
        f"redis://127.0.0.1:{PASSWORD}",
        f"redis://:{PASSWORD}@127.0.0.1:99999/0",
        f"redis://:{PASSWORD}@[::1/0",
        f"http://:{PASSWORD}@127.0.0.1",
        f"rediss://:{PASSWORD}@127.0.0.1?ssl_cert_reqs=none",
        f"redis+socket://:{PASSWORD}@/nowhere",
    ],
)
def test_a_wrong_broker_url_is_reported_without_its_password(
    use: Callable[[str], None], broker_url: str
) -> None:
    use(broker_url)
    try:
        connect(settings()).ping()
    except (InputError, redis.RedisError) as error:
        said = "".join(traceback.format_exception(error))
    assert PASSWORD not in said, said[max(0, said.find(PASSWORD) - 300) : said.find(PASSWORD) + 100]


def test_the_password_is_in_no_log_process_page_or_file(
    use: Callable[[str], None], start_worker: StartWorker, tmp_path: Path
) -> None:
    with redis_server("--requirepass", PASSWORD) as port:
        use(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
        worker = start_worker()
        source = write(pairs(4, 5), tmp_path / "in.parquet")
        job = submit(source, tmp_path / "out", model_id="null", shard_pairs=5)
        assert job.wait(timeout_s=60).state == "succeeded"
        with flower(tmp_path) as dashboard:
            wait_for(lambda: "'stats'" in str(dashboard.json("/api/workers?refresh=1")))
            pages = [dashboard.text(path) for path in ("/workers", "/tasks", "/broker")]
            (name,) = dashboard.json("/api/workers")
            pages += [dashboard.text(f"/worker/{name}"), dashboard.text("/api/workers?refresh=1")]
            said = json.dumps(pages) + _process_list()
    log = tmp_path / "worker-one.log"
    wait_for(lambda: "waiting for Redis" in log.read_text(), 30)
    assert worker.poll() is None
    assert "celery" in said and str(port) in said
    assert PASSWORD not in said, said[max(0, said.find(PASSWORD) - 300) : said.find(PASSWORD) + 100]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def _process_list() -> str:
    """Return the command lines that `ps` shows."""
    commands = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            commands.append(Path("/proc", pid, "cmdline").read_text())
        except OSError:
            pass
    return "\n".join(command for command in commands if "celery" in command)
