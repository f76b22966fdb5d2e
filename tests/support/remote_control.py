"""Commands of remote control that a worker refuses, as they are published in Redis."""

from __future__ import annotations

import base64
import json
from typing import Any

from rankmill.broker import CONTROL_QUEUE


def published(headers: object = None, body: object = None, **changes: Any) -> bytes:
    """Return a message of remote control, a ping with changes."""
    asked = {"method": "ping", "arguments": {}, "destination": None, **changes}
    message = {
        "body": body if body is not None else base64.b64encode(json.dumps(asked).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers or {"clock": 1, "expires": 0},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "x",
        },
    }
    return json.dumps(message).encode()


def ask(method: str, **arguments: object) -> bytes:
    return published(method=method, arguments=arguments)


# By its name: what is published as remote control, and a part of the line about it.
COMMANDS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"x", "it is not an object"),
    "a number": (b"5", "it is not an object"),
    "an empty object": (b"{}", "body is missing"),
    "a huge command": (b" " * 3 * 2**20, "larger than 1,048,576 bytes"),
    "compressed": (
        published(headers={"compression": "application/x-bz2"}),
        "headers.compression",
    ),
    "a clock that is a text": (published(headers={"clock": "x"}), "headers.clock"),
    "a clock of 400 digits": (published(headers={"clock": 10**400}), "headers.clock"),
    "a body that is a list": (published(body=[]), "body"),
    "an unknown command": (ask("nope"), "remote control: method 'nope'"),
    "another queue": (ask("add_consumer", queue="x"), "remote control: method 'add_consumer'"),
    **{
        name: (ask(name), f"remote control: method '{name}'")
        for name in (
            *("cancel_consumer", "pool_grow", "pool_shrink", "pool_restart", "autoscale"),
            *("rate_limit", "time_limit", "revoke", "terminate", "revoke_by_stamped_headers"),
            *("disable_events", "election", "hello", "objgraph", "memdump", "report", "query_task"),
        )
    },
    "an unknown argument": (ask("ping", x=1), "arguments.x"),
    "attributes of tasks": (ask("registered", taskinfoitems=["app"]), "taskinfoitems"),
    "a pattern": (published(pattern="(a+)+$", matcher="pcre"), "pattern"),
    "an answer to another key": (
        published(reply_to={"exchange": "", "routing_key": CONTROL_QUEUE}),
        "reply_to.exchange",
    ),
}
