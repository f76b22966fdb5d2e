"""Post one event: signed, never redirected, and without the address in any message."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from standardwebhooks.webhooks import Webhook

from rankmill.contract.base import parse
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure
from rankmill.errors import InputError, JobFailed, WebhookRefused, WebhookUnavailable
from rankmill.ledger.jobs import Ledger
from rankmill.notify import Event, event_id_of, failed_event
from rankmill.settings import CHECKOUT, Settings, settings
from tests.support.webhook import SECRET, Receiver, receiver
from worker import webhook
from worker.webhook import post_event, signed_headers

DOCS = CHECKOUT / "docs" / "webhooks.md"


@pytest.fixture
def event() -> Event:
    return Event(
        event_id=event_id_of("job", "deadline", "2026-11-21"),
        kind="deadline",
        occurred_at=datetime(2026, 11, 21, 6, tzinfo=UTC),
        job_id="job",
        state=JobState.RUNNING,
        output_uri="/data/scored",
        schedule="nightly",
        message="it will end at 07:10",
    )


def hook(url: str) -> Settings:
    return settings().model_copy(
        update={"webhook_url": SecretStr(url), "webhook_secret": SecretStr(SECRET)}
    )


@pytest.fixture
def receiving() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def test_the_receiver_gets_the_event_with_signatures(
    ledger: Ledger, event: Event, receiving: Receiver
) -> None:
    post_event(ledger, hook(receiving.url), event)
    (got,) = receiving.received
    assert parse(Event, got.body, "body") == event
    assert got.path == "/hooks/token-in-the-path?key=1"
    Webhook(SECRET.encode()).verify(got.body, got.headers)
    assert got.headers["webhook-id"] == event.event_id
    assert got.headers["rankmill-event-id"] == event.event_id
    signed = got.headers["rankmill-timestamp"].encode() + b"." + got.body
    # As 0.1 signed it.
    wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert got.headers["rankmill-signature"] == f"v1={wanted}"


def test_the_signature_is_that_of_the_specifications_libraries() -> None:
    """The values are those of the tests of the specification's reference libraries."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        '{"test": 2432232314}',
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_documented_check_takes_it_and_nothing_else(
    ledger: Ledger, event: Event, receiving: Receiver
) -> None:
    post_event(ledger, hook(receiving.url), event)
    (got,) = receiving.received
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(snippet, found)
    headers = {name.title(): value for name, value in got.headers.items()}
    check = found["is_from_rankmill"]
    assert check(SECRET, headers, got.body)
    assert not check(SECRET, headers, got.body + b" ")
    assert not check(SECRET + "!", headers, got.body)
    assert not check(SECRET, {**headers, "Webhook-Timestamp": "1"}, got.body)


def test_an_event_is_delivered_once_if_nothing_fails(
    ledger: Ledger, event: Event, receiving: Receiver
) -> None:
    for _ in range(2):
        post_event(ledger, hook(receiving.url), event)
    assert len(receiving.received) == 1


@pytest.mark.parametrize("answer", [408, 429, 500, 503])
def test_a_transient_answer_is_retried(
    ledger: Ledger, event: Event, receiving: Receiver, answer: int
) -> None:
    receiving.answers.append(answer)
    with pytest.raises(WebhookUnavailable, match=str(answer)):
        post_event(ledger, hook(receiving.url), event)
    post_event(ledger, hook(receiving.url), event)
    assert len(receiving.received) == 2


@pytest.mark.parametrize("answer", [301, 307, 400, 404])
def test_a_redirect_is_not_followed_and_a_refusal_is_final(
    ledger: Ledger, event: Event, receiving: Receiver, answer: int
) -> None:
    receiving.answers.append(answer)
    with pytest.raises(WebhookRefused, match=str(answer)):
        post_event(ledger, hook(receiving.url), event)
    assert len(receiving.received) == 1


def test_a_receiver_that_does_not_answer_times_out(
    ledger: Ledger, event: Event, receiving: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.2)
    receiving.answers.append(0)
    with pytest.raises(WebhookUnavailable, match="TimeoutError"):
        post_event(ledger, hook(receiving.url), event)


def test_neither_address_nor_secret_is_in_errors_and_logs(
    ledger: Ledger, event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        url = f"http://{address}/token-in-the-path"
        with pytest.raises(WebhookUnavailable) as caught:
            post_event(ledger, hook(url), event)
    assert caught.value.__context__ is None  # a cause would be shown in a traceback
    said = f"{caught.value}{caplog.text}{hook(url)!r}"
    assert "token" not in said and SECRET not in said and address not in said


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/token",
        "file:///etc/token",
        "host/token",
        "https://user:token@host/",
        "https:///token",
        "https://host:token/",
        "https://host/to ken",
    ],
)
def test_an_address_that_cannot_be_posted_to_is_refused_unquoted(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_WEBHOOK_URL", url)
    monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", SECRET)
    settings.cache_clear()
    with pytest.raises(InputError, match=r"RANKMILL_WEBHOOK_URL: .*http://") as caught:
        settings()
    assert "token" not in str(caught.value) and "ken" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", [None, "short", "whsec_short0=+?/and/no/base64", "whsec_c2hvcnQ="]
)
def test_a_webhook_needs_a_secret(secret: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_WEBHOOK_URL", "https://host/")
    if secret is not None:
        monkeypatch.setenv("RANKMILL_WEBHOOK_SECRET", secret)
    settings.cache_clear()
    with pytest.raises(InputError, match=r"RANKMILL_WEBHOOK_SECRET: ((?!short|c2hv).)*$"):
        settings()


@pytest.fixture(autouse=True)
def forget_settings() -> Iterator[None]:
    yield
    settings.cache_clear()


def test_a_failure_that_may_quote_a_row_is_sent_without_its_message() -> None:
    def failed(message: str, quotes_input: bool) -> Event:
        failure = Failure(
            job_id="job",
            message=message,
            exit_code=1,
            shard_index=None,
            failed_at=datetime(2026, 11, 21, tzinfo=UTC),
            quotes_input=quotes_input,
        )
        return failed_event(failure, "/data/scored", None)

    assert InputError("x").quotes_input and not JobFailed("x").quotes_input
    assert "private" not in failed("query 'private' comes again", True).message
    assert failed("the disk is full", False).message == "the disk is full"
    assert len(failed("x" * 9999, False).message) <= 500
    assert failed("a", True).event_id == failed("b", True).event_id


def test_an_event_is_a_closed_contract(event: Event) -> None:
    with pytest.raises(ValidationError):
        Event(**{**event.model_dump(), "document": "text"})
    assert event.version == 1
