"""Post events to the webhook, signed by the Standard Webhooks specification.

https://www.standardwebhooks.com. Neither the address nor the secret appears in any message or log;
the address may itself be a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook

from rankmill.errors import WebhookRefused, WebhookUnavailable
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.metadata_service import is_metadata_address
from rankmill.notify import Event, delivered_turn
from rankmill.settings import Settings

log = get_logger(__name__)

# For each step: connecting, sending, the start of the answer. A task's own limit bounds their sum.
_TIMEOUT_S = 5.0
# Request timeout, too early, too many requests; and every status from 500 on.
_RETRIED = {408, 425, 429}


def post_event(ledger: Ledger, settings: Settings, event: Event) -> None:
    """Post an event to the webhook of the settings, unless it was delivered already.

    Raises:
        WebhookUnavailable: no answer, or one that asks for a retry.
        WebhookRefused: a retry would be answered the same.
        BrokerUnavailable: Redis does not answer.
    """
    fields = {"event_id": event.event_id, "job_id": event.job_id}
    if settings.webhook_url is None or settings.webhook_secret is None:
        log.warning("event dropped: no webhook configured", **fields)
        return
    if ledger.had_turn(delivered_turn(event)):
        return
    body = event.model_dump_json()
    secret = settings.webhook_secret.get_secret_value()
    headers = signed_headers(secret, event.event_id, body, datetime.now(UTC))
    answer = _post(settings.webhook_url.get_secret_value(), headers, body.encode())
    if isinstance(answer, str):
        raise WebhookUnavailable(f"the webhook does not answer: {answer}")
    if answer >= 500 or answer in _RETRIED:
        raise WebhookUnavailable(f"the webhook answers {answer}")
    if 300 <= answer < 400:
        raise WebhookRefused(f"the webhook answers {answer}; redirects are not followed")
    if not 200 <= answer < 300:
        raise WebhookRefused(f"the webhook answers {answer}")
    ledger.take_turn(delivered_turn(event), settings.keep_finished_s)
    log.info("event delivered", **fields)


def signed_headers(secret: str, event_id: str, body: str, now: datetime) -> dict[str, str]:
    """Return the headers of a request, with its id, its time and its signature.

    The `Rankmill-` headers are those of 0.1, in hex over time and body; the next version drops
    them.

    Args:
        event_id: the id of the request, the same for each try.
        body: the body as it is sent.
        secret: `whsec_` and the key in base64, or any other text, whose bytes are the key.
        now: in UTC.
    """
    key = secret if secret.startswith("whsec_") else secret.encode()
    timestamp = str(int(now.timestamp()))
    signed = f"{timestamp}.{body}".encode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "rankmill",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": Webhook(key).sign(event_id, now, body),
        "Rankmill-Event-Id": event_id,
        "Rankmill-Timestamp": timestamp,
        "Rankmill-Signature": "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(),
    }


def _post(url: str, headers: dict[str, str], body: bytes) -> int | str:
    """Return the status, or the kind of error: its text, and so a cause, names the address."""
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
        connection.connect()
        if is_metadata_address(connection.sock.getpeername()[0]):
            raise WebhookRefused(
                "RANKMILL_WEBHOOK_URL is the address of a cloud's metadata service; correct it"
            )
        connection.request("POST", target, body, headers)
        return connection.getresponse().status
    except (OSError, HTTPException, UnicodeError) as error:
        return type(error).__name__
    finally:
        connection.close()
