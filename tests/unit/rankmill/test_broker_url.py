"""Check broker URLs: some are accepted, others refused, and sentinels are split."""

from __future__ import annotations

import pytest

from rankmill.broker import make_app
from rankmill.broker_url import checked_url, sentinels
from rankmill.errors import InputError
from rankmill.ledger.server import check_facts
from rankmill.settings import Settings, settings
from tests.conftest import forget_settings

URL = "sentinel://user:s%2Fcret@one:1;sentinel://two;sentinel://[::1]:3/2"


def test_each_sentinel_gets_the_login_and_the_database() -> None:
    whole = checked_url(URL)
    login = "sentinel://user:s%2Fcret@"
    assert whole == f"{login}one:1/2;{login}two/2;{login}[::1]:3/2"
    found = sentinels(whole)
    assert found.addresses == (("one", 1), ("two", 26379), ("::1", 3))
    assert (found.username, found.password, found.database) == ("user", "s/cret", 2)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://:s3cr3t@a:1", "Cluster is not supported"),
        ("rediss+cluster://:s3cr3t@a:1", "Cluster is not supported"),
        ("redis-cluster://:s3cr3t@a:1", "Cluster is not supported"),
        ("valkey://:s3cr3t@a:1", "begin with redis://"),
        ("redis+sentinel://:s3cr3t@a:1", "must be redis://"),
        ("amqp://:s3cr3t@a:1", "must be redis://"),
        ("sentinel://:s3cr3t@a:1;b:2", "sentinel:// before each"),
        ("sentinel://:s3cr3t@a:1;sentinel://:other@b:2", "one login"),
        ("sentinel://:s3cr3t@a:1/1;sentinel://b:2/2", "one database"),
        ("sentinel://:s3cr3t@a:1/x", "number of a database"),
        ("sentinel://:s3cr3t@a:1?master=x", "takes no ?options"),
        ("sentinel://:s3cr3t@a:s3cr3t", "cannot be read"),
        ("sentinel://:s3cr3t@:1", "without a host"),
        ("sentinel://a:1?ssl_cert_reqs=none&s3cr3t", "certificates are checked"),
    ],
)
def test_another_url_is_refused_without_its_password(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", url)
    monkeypatch.setenv("RANKMILL_BROKER_MASTER", "night")
    forget_settings()
    with pytest.raises(InputError, match=r"RANKMILL_BROKER_URL:") as caught:
        settings()
    forget_settings()
    assert words in str(caught.value) and "s3cr3t" not in str(caught.value)


def test_sentinels_need_the_name_of_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_BROKER_URL", URL)
    forget_settings()
    with pytest.raises(InputError, match=r"^RANKMILL_BROKER_MASTER: is needed with sentinel://"):
        settings()
    forget_settings()


def test_every_library_gets_the_sentinels_their_password_and_tls() -> None:
    conf = make_app(
        Settings(
            broker_url=URL,
            broker_master="night",
            broker_sentinel_user="guard",
            broker_sentinel_password="s3cr3t",
            broker_tls=True,
        )
    ).conf
    expected = {"username": "guard", "password": "s3cr3t", "ssl": True}
    for options in (conf.broker_transport_options, conf.redbeat_redis_options):
        assert options["sentinel_kwargs"].items() >= expected.items()
    assert conf.broker_transport_options["master_name"] == "night"
    assert conf.redbeat_redis_options["service_name"] == "night"
    assert conf.redbeat_redis_options["password"] == "s/cret"
    assert conf.broker_use_ssl["ssl_check_hostname"] is True


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"redis_version": "7.0.15", "redis_mode": "cluster"}, "node of a cluster"),
        ({"redis_version": "7.0.15", "cluster_enabled": 1}, "node of a cluster"),
        ({"redis_version": "6.0.16", "redis_mode": "standalone"}, "6.2 or newer"),
        ({"redis_version": "5.0.7"}, "too old"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(facts: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_facts(facts)


def test_other_servers_are_taken() -> None:
    check_facts({"redis_version": "6.2.14", "redis_mode": "standalone", "cluster_enabled": 0})
    check_facts({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"})
