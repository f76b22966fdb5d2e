"""A node of a Redis Cluster is refused in one line, by each process that would use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from producer.cluster import exporter, flower
from producer.doctor.broker import check_redis
from producer.jobs.submit import submit
from rankmill.errors import InputError
from rankmill.settings import CHECKOUT, settings
from tests.conftest import forget_settings
from tests.support.inputs import pairs, write
from tests.support.redis_server import free_port, redis_server

CELERY = [sys.executable, "-m", "celery", "--quiet", "-A", "tasks"]


def test_a_cluster_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(pairs(1, 1), tmp_path / "in.parquet")
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(*cluster) as port:
        monkeypatch.setenv("RANKMILL_BROKER_URL", f"redis://127.0.0.1:{port}/0")
        monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
        monkeypatch.setenv("RANKMILL_FLOWER_BASIC_AUTH", "user:a long password")
        forget_settings()
        started = [
            subprocess.Popen([*CELERY, *part], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
            for part in (["beat", "--pidfile", ""], ["worker", "--queues", "rankmill.control"])
        ]
        with pytest.raises(InputError, match="Redis Cluster is not supported"):
            submit(source, tmp_path / "out", model_id="null")
        assert not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="Redis Cluster is not supported"):
            exporter.serve(settings())
        with pytest.raises(InputError, match="Redis Cluster is not supported"):
            flower.serve(flower.Dashboard("127.0.0.1", 0, None, False), settings())
        (found,) = [each for each in check_redis(settings()) if each.name == "redis"]
        assert found.state == "problem" and "Redis Cluster" in found.message
        for process in started:
            _, text = process.communicate(timeout=60)
            lines = [line for line in text.splitlines() if "Redis Cluster" in line]
            assert process.returncode == 2 and len(lines) == 1 and "Traceback" not in text, text
    forget_settings()
