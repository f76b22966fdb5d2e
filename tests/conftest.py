"""Real parts for tests: a Redis, worker processes, a small random cross-encoder.

tests/gpu runs on machines that have little more than torch: fixtures import what they need, and
the settings of plugins may be there without the plugins.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from rankmill.dispatch import Dispatcher
    from rankmill.ledger.jobs import Ledger

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests share their cores; see producer/local
# Whatever asks the hub gets no answer, at once and without leaving this machine. Its client reads
# this when it is imported, which nothing above does and a test's own imports may.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ.pop("HF_TOKEN", None)
# So that no test's run is listed among those of the one who runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rankmill-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
if find_spec("hypothesis") is not None:
    import hypothesis

    hypothesis.settings.register_profile("patient", deadline=None)  # an example may wait for a core
    hypothesis.settings.load_profile("patient")

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "pytest-timeout's, which is not here")


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of the garbage collections that follow.

    To release a model asks for one. It takes a second among the objects of thousands of tests.
    """
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def own_run_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test list its own runs only."""
    monkeypatch.setenv("XDG_STATE_HOME", os.path.join(os.environ["XDG_STATE_HOME"], uuid4().hex))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a BERT cross-encoder with random weights."""
    import torch

    from tests.support.models.checkpoints import bert

    torch.manual_seed(0)
    return bert(tmp_path_factory.mktemp("model") / "bert", num_labels=1)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    from producer.cluster.local import start_redis

    with start_redis() as (broker_url, _):
        yield broker_url


@pytest.fixture
def broker_url(redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give this process and its workers an empty Redis, and settings that notice faults soon."""
    import redis

    redis.Redis.from_url(redis_server.replace("redis+socket://", "unix://")).flushall()
    monkeypatch.setenv("RANKMILL_BROKER_URL", redis_server)
    monkeypatch.setenv("RANKMILL_CLAIM_S", "4")
    monkeypatch.setenv("RANKMILL_RECONCILE_S", "1")
    monkeypatch.setenv("RANKMILL_RUNTIME", str(tmp_path))
    forget_settings()
    yield redis_server
    forget_settings()


def forget_settings() -> None:
    from rankmill.broker import app
    from rankmill.settings import settings

    settings.cache_clear()
    app.cache_clear()


@pytest.fixture
def ledger(broker_url: str) -> Ledger:
    from rankmill.ledger.jobs import Ledger
    from rankmill.settings import settings

    return Ledger.connect(settings())


@pytest.fixture
def dispatcher(ledger: Ledger) -> Dispatcher:
    from rankmill.dispatch import Dispatcher
    from rankmill.settings import settings

    return Dispatcher(ledger, settings())


@pytest.fixture
def start_worker(broker_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Start real worker processes; all are stopped when the test ends."""
    from producer.cluster.local import running, worker_command

    with ExitStack() as stack:

        def start(name: str = "one") -> subprocess.Popen[bytes]:
            environment = {"CUDA_VISIBLE_DEVICES": "", "RANKMILL_THREADS": "1"}
            log = tmp_path / f"worker-{name}.log"
            return stack.enter_context(running(worker_command(name), environment, log))

        yield start
