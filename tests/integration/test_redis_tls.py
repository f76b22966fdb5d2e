"""rediss://: a real Redis that speaks TLS, whose certificate must be trusted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from producer.cluster.local import running
from producer.jobs.submit import submit
from rankmill.broker import CONTROL_QUEUE, app
from rankmill.errors import InputError
from rankmill.ledger.client import connect
from rankmill.settings import CHECKOUT, Settings, settings
from tests.conftest import StartWorker
from tests.support.bare_flower import flower
from tests.support.command import rankmill
from tests.support.inputs import pairs, wait_for, write
from tests.support.redis_server import Certificates, redis_server

PASSWORD = "s3cr3t"
Use = Callable[..., None]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture(scope="module")
def url(certificates: Certificates) -> Iterator[str]:
    options = (*certificates.options, "--requirepass", PASSWORD)
    with redis_server(*options, plain=False) as port:
        yield f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"


@pytest.fixture
def use(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Have this process and those it starts use a broker."""

    def set_broker(broker_url: str, ca: Path | None) -> None:
        monkeypatch.setenv("RANKMILL_BROKER_URL", broker_url)
        monkeypatch.delenv("RANKMILL_BROKER_CA", raising=False)
        if ca is not None:
            monkeypatch.setenv("RANKMILL_BROKER_CA", str(ca))
        settings.cache_clear()
        app.cache_clear()

    return set_broker


def test_a_job_flower_and_beat_over_tls(
    url: str, certificates: Certificates, use: Use, start_worker: StartWorker, tmp_path: Path
) -> None:
    use(url, certificates.ca)
    start_worker()
    source = write(pairs(4, 5), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null", shard_pairs=5)
    assert job.wait(timeout_s=60).state == "succeeded"
    with flower(tmp_path) as dashboard:
        wait_for(lambda: any(dashboard.json("/api/workers?refresh=1").values()))
        assert CONTROL_QUEUE in dashboard.text("/broker")
    beat = ("beat", "-S", "tasks.beat:OwnScheduler", "--pidfile", "", "--loglevel", "INFO")
    log = tmp_path / "beat.log"
    with running([sys.executable, "-m", "celery", "-A", "tasks", *beat], {}, log):
        wait_for(lambda: "Acquired lock" in log.read_text(), 30)


def test_an_untrusted_certificate_is_refused_in_a_line(
    url: str, use: Use, start_worker: StartWorker, tmp_path: Path
) -> None:
    other = Certificates.make(tmp_path / "other")
    for ca in (other.ca, None):
        use(url, ca)
        done = rankmill("jobs")
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
        assert "certificate that is not trusted" in done.stderr
        assert "RANKMILL_BROKER_CA" in done.stderr and PASSWORD not in done.stderr
    start_worker()
    log = tmp_path / "worker-one.log"
    wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), 30)
    said = log.read_text()
    assert " ready." not in said and PASSWORD not in said


def test_a_certificate_for_another_host_is_refused(url: str, certificates: Certificates) -> None:
    elsewhere = url.replace("127.0.0.1", "localhost")
    client = connect(Settings(broker_url=elsewhere, broker_ca=str(certificates.ca)))
    with pytest.raises(redis.ConnectionError, match="Hostname mismatch"):
        client.ping()


def test_a_client_without_tls_is_refused(url: str) -> None:
    client = connect(Settings(broker_url=url.replace("rediss", "redis")))
    with pytest.raises(redis.ConnectionError):
        client.ping()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_that_cannot_be_read_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"^RANKMILL_BROKER_CA: .*ca\.pem: "):
        connect(Settings(broker_url="rediss://127.0.0.1", broker_ca=str(path)))


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false&db=1"])
def test_the_url_cannot_turn_the_check_off(use: Use, option: str) -> None:
    use(f"rediss://:{PASSWORD}@127.0.0.1:1/0?{option}", None)
    with pytest.raises(InputError, match="certificates are checked") as caught:
        settings()
    assert PASSWORD not in str(caught.value)


def test_celery_alone_takes_the_same_configuration(url: str, certificates: Certificates) -> None:
    code = (
        "import celery, ssl, sys; app = celery.Celery(broker=sys.argv[1], broker_use_ssl="
        "{'ssl_cert_reqs': ssl.CERT_REQUIRED, 'ssl_ca_certs': sys.argv[2]}); "
        "app.send_task('rankmill.submit', kwargs={}, queue='nobody')"
    )
    command = [sys.executable, "-c", code, url, str(certificates.ca)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
