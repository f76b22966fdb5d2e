"""An event told to the webhook: signed, bounded in time, every answer final or worth another try.

Neither the address nor the secret, which may hide in the address, is in any message or log.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from rankmill.errors import WebhookRefused, WebhookUnavailable
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.notify import Event, told
from rankmill.settings import Settings

log = get_logger(__name__)

# Of each step: connecting, sending, the answer's beginning. A task's own limit bounds their sum.
_TIMEOUT_S = 5.0
# Request time-out, too early, too many requests; besides all from 500 on.
_TRY_AGAIN = {408, 425, 429}


def tell(ledger: Ledger, settings: Settings, event: Event) -> None:
    """Post an event, unless it was told already.

    Raises:
        WebhookUnavailable: no answer, or one that asks to come again.
        WebhookRefused: another try would be answered the same.
        BrokerUnavailable: Redis does not answer.
    """
    if settings.webhook_url is None or settings.webhook_secret is None:
        log.warning(
            "event is not told: this worker knows no webhook",
            event_id=event.event_id,
            job_id=event.job_id,
        )
        return
    if ledger.had_turn(told(event)):
        return
    body = event.model_dump_json().encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "rankmill",
        "Rankmill-Event-Id": event.event_id,
        "Rankmill-Timestamp": timestamp,
        "Rankmill-Signature": signature(
            settings.webhook_secret.get_secret_value(), timestamp, body
        ),
    }
    _check(_post(settings.webhook_url.get_secret_value(), headers, body))
    ledger.take_turn(told(event), settings.keep_finished_s)
    log.info("event is told", event_id=event.event_id, job_id=event.job_id)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA256 of timestamp, a point and the body."""
    signed = timestamp.encode() + b"." + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _check(answer: int | str) -> None:
    """Raise unless the webhook took the event; `answer` is its status, or why there is none."""
    if isinstance(answer, str):
        raise WebhookUnavailable(f"the webhook does not answer: {answer}")
    if answer >= 500 or answer in _TRY_AGAIN:
        raise WebhookUnavailable(f"the webhook answers {answer}")
    if 300 <= answer < 400:
        raise WebhookRefused(f"the webhook answers {answer}; redirects are not followed")
    if not 200 <= answer < 300:
        raise WebhookRefused(f"the webhook answers {answer}")


def _post(url: str, headers: dict[str, str], body: bytes) -> int | str:
    """The answer's status, or the kind of error: its text, and so its cause, names the address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        connection: HTTPConnection = HTTPSConnection(
            host, parts.port, timeout=_TIMEOUT_S, context=tls
        )
    else:
        connection = HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, headers)
        return connection.getresponse().status
    except (OSError, HTTPException, UnicodeError) as error:
        return type(error).__name__
    finally:
        connection.close()
