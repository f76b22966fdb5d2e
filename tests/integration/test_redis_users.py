"""docker/redis/users.acl in a real Redis: each role can do its work, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Exchange
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.cluster.local import running
from producer.cluster.snapshot import Surveyor
from producer.jobs.control import cancel, resume
from producer.jobs.handle import find_job
from producer.jobs.listing import list_jobs
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, TICK, app
from rankmill.settings import CHECKOUT, Settings, settings
from tests.conftest import StartWorker
from tests.support.bare_flower import flower
from tests.support.command import called
from tests.support.inputs import pairs, wait_for, write
from tests.support.redis_server import client_of, free_port, redis_server

ROLES = ("worker", "producer", "beat", "flower", "monitor", "keda")
RENDER = CHECKOUT / "docker" / "redis" / "render-acl"


def environment() -> dict[str, str]:
    return {**os.environ, **{f"REDIS_PASSWORD_{role.upper()}": f"pw of/{role}" for role in ROLES}}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Redis's file of users, with one for the tests."""
    rendered = subprocess.run([RENDER], capture_output=True, text=True, env=environment())
    assert rendered.returncode == 0, rendered.stderr
    admin = "user admin on >admin ~* &* +@all\n"
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    path.write_text(rendered.stdout + admin)
    return path


@pytest.fixture(scope="module")
def port(users: Path) -> Iterator[int]:
    with redis_server("--aclfile", str(users)) as port:
        yield port


@pytest.fixture
def admin(port: int) -> Iterator[redis.Redis]:
    """Yield a client with all rights; check at the end that nobody was refused anything."""
    client = client_of(port, "admin", "admin")
    client.flushall()
    client.acl_log_reset()
    yield client


def url(port: int, role: str) -> str:
    return f"redis://{role}:pw%20of%2F{role}@127.0.0.1:{port}/0"


def become(monkeypatch: pytest.MonkeyPatch, port: int, role: str) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", url(port, role))
    settings.cache_clear()
    app.cache_clear()


def refusals(admin: redis.Redis) -> list[str]:
    return [f"{each['username']}: {each['object']}" for each in admin.acl_log()]


def test_a_job_runs_with_the_users_of_worker_and_producer(
    port: int,
    admin: redis.Redis,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    become(monkeypatch, port, "worker")
    start_worker()
    become(monkeypatch, port, "producer")
    source = write(pairs(20, 5), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null", shard_pairs=10)
    assert job.wait(timeout_s=60).state == "succeeded"
    slow = submit(source, tmp_path / "slow", model_id="null:5", shard_pairs=10)
    wait_for(lambda: slow.status().n_pairs_done > 0)
    survey = Surveyor.connect(Settings(broker_url=url(port, "monitor"))).survey()
    assert survey.n_workers == 1 and survey.queues
    assert {each.job_id for each in list_jobs()} == {job.job_id, slow.job_id}
    cancel(find_job(slow.job_id))
    assert slow.status().state in ("cancelling", "cancelled")
    resume(find_job(str(tmp_path / "slow")))
    cancel(find_job(slow.job_id))
    prepared = submit(source, tmp_path / "prepared", model_id="null", cluster=True)
    assert prepared.wait(timeout_s=60).state == "succeeded"
    spec = {"input_uri": str(source), "output_uri": f"{tmp_path}/by-name", "model_id": "null"}
    app().send_task("rankmill.submit", kwargs={"spec": spec})
    wait_for((tmp_path / "by-name" / "_SUCCESS").exists)
    places = (source, tmp_path / "nightly", "--model", "null")
    for arguments in (
        ("add", "nightly", "--cron", "0 3 * * *", *places),
        *(("list",), ("run-now", "nightly"), ("show", "nightly")),
    ):
        done = called("schedule", *arguments)
        assert done.returncode == 0, done.stderr
    app().send_task(TICK)
    wait_for(lambda: list((tmp_path / "nightly").rglob("_SUCCESS")))
    assert called("schedule", "remove", "nightly").returncode == 0
    for arguments in (("jobs",), ("doctor",), ("retry-rejects", tmp_path / "out")):
        assert "NOPERM" not in called(*arguments).stderr
    assert refusals(admin) == []


def test_only_the_right_login_is_taken(port: int, admin: redis.Redis) -> None:
    for user, password in (("worker", "pw of/producer"), ("default", ""), (None, None)):
        once = Retry(NoBackoff(), 0)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, username=user, password=password, retry=once).ping()


def test_redis_restarts_with_the_writes_of_every_role(users: Path, tmp_path: Path) -> None:
    options = ("--aclfile", str(users), "--appendonly", "yes", "--dir", str(tmp_path))
    with redis_server(*options) as port:
        worker = client_of(port, "worker", "pw of/worker")
        with worker.pipeline(transaction=True) as pipe:
            pipe.hset("rankmill:job:x", "state", "running").hset("rankmill:running", "x", "5")
            pipe.execute()
        script = "redis.call('HSET', KEYS[1], 'a', 1); redis.call('HSET', KEYS[1], 'b', 2)"
        worker.evalsha(worker.script_load(script), 1, "rankmill:job:x")
    with redis_server(*options) as port:
        kept = client_of(port, "worker", "pw of/worker").hgetall("rankmill:job:x")
    assert kept == {"state": "running", "a": "1", "b": "2"}


def test_flower_receives_events_queries_workers_and_counts_messages(
    port: int,
    admin: redis.Redis,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    become(monkeypatch, port, "worker")
    start_worker()
    wait_for(lambda: " ready." in (tmp_path / "worker-one.log").read_text())
    become(monkeypatch, port, "flower")
    with flower(tmp_path) as dashboard:

        def answers() -> bool:
            workers = dashboard.json("/api/workers?refresh=1")
            assert [name.partition("@")[0] for name in workers] in ([], ["one"])
            return CONTROL_QUEUE in str(workers) and "rankmill.finalize" in str(workers)

        wait_for(answers)
        assert dashboard.json("/api/queues/length")["active_queues"]
        shown = dashboard.text("/broker") + dashboard.text("/workers")
    assert "pw%20of" not in shown and "pw of" not in shown
    assert refusals(admin) == []


def test_flowers_login_submits_nothing(
    port: int,
    admin: redis.Redis,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    become(monkeypatch, port, "worker")
    start_worker()
    wait_for(lambda: " ready." in (tmp_path / "worker-one.log").read_text())
    become(monkeypatch, port, "flower")
    celery, answers = app(), "x.reply.celery.pidbox"
    write(pairs(1, 1), tmp_path / "in.parquet")
    places = {"input_uri": f"{tmp_path}/in.parquet", "output_uri": f"{tmp_path}/out"}
    job = {"spec": {**places, "model_id": "null"}}
    # The worker is asked to take from a queue that Flower may use, then work is sent to that queue.
    celery.control.add_consumer(answers)
    with pytest.raises(OperationalError, match="lpush"):
        celery.send_task("rankmill.submit", kwargs=job, queue=answers)
    # The same with a channel that Flower may publish to.
    fanout = {"exchange": "celery.pidbox", "exchange_type": "fanout"}
    celery.control.add_consumer("mine", **fanout)
    with celery.connection_for_write() as connection, connection.Producer() as producer:
        exchange = Exchange("celery.pidbox", type="fanout", durable=False)
        message = celery.amqp.as_task_v2("1", "rankmill.submit", kwargs=job)
        producer.publish(
            message.body, exchange=exchange, declare=[exchange], headers=message.headers
        )
    # A worker's answer is directed to a key by the answers' binding.
    with celery.connection_for_write() as connection:
        mailbox = celery.control.mailbox(connection)
        binding = "\x06\x16".join((mailbox.oid, "", "rankmill:turn:mine"))
        client_of(port, "flower", "pw of/flower").sadd(
            "_kombu.binding.reply.celery.pidbox", binding
        )
        assert mailbox.multi_call("ping", timeout=5, limit=1)
    keys = set(admin.keys())
    assert not {"mine", answers, "rankmill:turn:mine"} & keys
    assert not (tmp_path / "out").exists()


def test_beat_sends_due_tasks(
    port: int, admin: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, port, "beat")
    (tmp_path / "beats.py").write_text(
        "from tasks.celery import app\n"
        "app.conf.beat_max_loop_interval = 1\n"
        "entry = {'task': 'rankmill.submit', 'schedule': 0.5, 'kwargs': {'spec': {}}}\n"
        "app.conf.beat_schedule = {'entry': entry}\n"
    )
    scheduler = ("beat", "-S", "tasks.beat:OwnScheduler", "--pidfile", "")
    command = [sys.executable, "-m", "celery", "-A", "beats", *scheduler]
    path = {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    with running(command, path, tmp_path / "beat.log"):
        wait_for(lambda: admin.llen(CONTROL_QUEUE) >= 2, 30)
        assert beat_health() == (0, "healthy\n")
    admin.delete("rankmill:beat::lock")  # it expires by itself, too
    assert beat_health() == (1, "beat does not hold its lock\n")
    assert refusals(admin) == []
    monkeypatch.setenv("RANKMILL_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    code, said = beat_health()
    assert code == 0 and "Redis does not answer" in said, "a restart would not help"


def beat_health() -> tuple[int, str]:
    """Run the health check of beat's container."""
    command = [sys.executable, str(CHECKOUT / "docker" / "beat_health.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_a_missing_password_is_an_error_and_no_file_is_written() -> None:
    incomplete = {k: v for k, v in environment().items() if k != "REDIS_PASSWORD_FLOWER"}
    done = subprocess.run([RENDER], capture_output=True, text=True, env=incomplete)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "render-acl: set REDIS_PASSWORD_FLOWER\n"
    whole = subprocess.run([RENDER], capture_output=True, text=True, env=environment())
    assert "pw of" not in whole.stdout and "@" not in whole.stdout.replace("+@", "").replace(
        "-@", ""
    )
