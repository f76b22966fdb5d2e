"""Fixtures of several files: an S3 endpoint behind a proxy with planned faults, and schedules."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from producer.cluster.local import running, start_redis, worker_command
from producer.schedules import clock
from producer.schedules.store import Store
from rankmill import notify, storage
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings
from tests.conftest import forget_settings
from tests.support import s3_servers
from tests.support.command import Run, called, environment
from tests.support.inputs import pairs, write
from tests.support.nights import Nights
from tests.support.s3 import BUCKET, Faults, faulty_proxy, s3_endpoint, s3_environment


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_endpoint() as url:
        yield url


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def s3(endpoint: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make an empty bucket behind the proxy."""
    with faulty_proxy(endpoint, faults) as proxy:
        for name, value in s3_environment(proxy).items():
            monkeypatch.setenv(name, value)
        storage.reconnect()
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        storage.remove(f"s3://{BUCKET}")
        storage.remove_unfinished(f"s3://{BUCKET}")
        faults.n_requests = 0
        yield f"s3://{BUCKET}"
        faults.planned.clear()
        storage.reconnect()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set the store to a folder that does not exist yet."""
    monkeypatch.setenv("RANKMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no cache of the hub"))
    settings.cache_clear()
    yield tmp_path / "models"
    settings.cache_clear()


@pytest.fixture(scope="session")
def localbucket_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_servers.localbucket(tmp_path_factory.mktemp("localbucket") / "buckets") as url:
        yield url


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_servers.rclone(tmp_path_factory.mktemp("rclone") / "buckets") as url:
        yield url


@pytest.fixture
def localbucket(localbucket_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket in LocalBucket."""
    yield from _new_bucket(localbucket_endpoint, monkeypatch)


@pytest.fixture
def rclone(rclone_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket in rclone, which sends the checksum of the object with each range of it."""
    monkeypatch.setenv("RANKMILL_S3_CHECKSUMS", "when_required")
    yield from _new_bucket(rclone_endpoint, monkeypatch)


def _new_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    forget_settings()
    storage.reconnect()
    name = f"test-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield f"s3://{name}"
    monkeypatch.undo()
    forget_settings()
    storage.reconnect()


@pytest.fixture
def nights(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Without a worker: what was submitted stays running."""
    return _nights(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def worked_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis of its own with a worker."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with start_redis() as (url, _):
        environment = {"RANKMILL_BROKER_URL": url, "RANKMILL_THREADS": "1"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_RECONCILE_S": "1"}
        with running(worker_command("one"), environment, log):
            yield url


@pytest.fixture(scope="module")
def submit_and_watch(worked_redis: str) -> Run:
    """Return a function that has a job done by the file's worker, and shows its end."""

    def run(source: Path, output: Path, *options: object) -> subprocess.CompletedProcess[str]:
        variables = {**environment(), "RANKMILL_BROKER_URL": worked_redis}
        done = called("submit", source, output, *options, variables=variables)
        return done if done.returncode else called("watch", output, variables=variables)

    return run


@pytest.fixture
def working(worked_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """With a worker: what was submitted ends."""
    monkeypatch.setenv("RANKMILL_BROKER_URL", worked_redis)
    forget_settings()
    nights = _nights(tmp_path, monkeypatch)
    nights.ledger.redis.flushall()
    yield nights
    forget_settings()


def _nights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    write(pairs(4, 5), folder / "in.parquet")
    nights = Nights(folder, Ledger.connect(settings()), Store.connect(settings()))
    monkeypatch.setattr(clock, "now", lambda ledger: nights.time)
    return nights


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that lists the events this process has sent to the webhook."""
    monkeypatch.setenv("RANKMILL_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", "sixteen characters")
    settings.cache_clear()
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(notify, "send_notify", lambda event, *_: sent.append(event))
    return lambda: list({each["event_id"]: each for each in sent}.values())
