"""Events that Flower must drop, as they are published in Redis, and some that are right."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from celery import uuid


def published(event: object, **changes: object) -> bytes:
    """Return a message with this event, or body in bytes, and with changes of its envelope."""
    content = event if isinstance(event, bytes) else json.dumps(event).encode()
    message = {
        "body": base64.b64encode(content).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": "a@b"},
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": "celeryev", "routing_key": "task.received"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": uuid(),
        },
    }
    return json.dumps({**message, **changes}).encode()


def of_task(**changes: Any) -> bytes:
    return published(_task(**changes))


def of_worker(**changes: Any) -> bytes:
    event = {"type": "worker-heartbeat", "hostname": "a@b", "timestamp": time.time(), "freq": 10.0}
    return published({**event, "clock": 3, "active": 0, "processed": 0, **changes})


def _task(**changes: Any) -> dict[str, Any]:
    event = {"type": "task-received", "uuid": uuid(), "hostname": "a@b", "clock": 5, "pid": 1}
    return {**event, "timestamp": time.time(), "utcoffset": 0, "name": "t", **changes}


BAD = {
    "no JSON": b"\xff{",
    "a number": b"5",
    "a list": b"[1]",
    "nested": b"[" * 100_000,
    "no fields": b"{}",
    "no body": published({}, body=None),
    "no base64": published({}, body="%%%"),
    "no properties": published({}, properties={}),
    "a pickle": published({}, **{"content-type": "application/x-python-serialize"}),
    "compressed": published(b"x", headers={"compression": "application/x-gzip"}),
    "a body that is not JSON": published(b"{"),
    "a body that is a text": published("x"),
    "an empty event": published({}),
    "an unknown kind": of_task(type="other-x"),
    "a type that is a number": of_task(type=5),
    "a type that is null": of_task(type=None),
    "one of several": published([_task(), _task(clock="x")]),
    **{
        f"of a task: {name} {value!s:.20}": of_task(**{name: value})
        for name, values in {
            "uuid": (None, 5, [], {}, "", "\ud800"),
            "hostname": (None, 5, [], {}),
            "timestamp": (None, "x", [], -1, 1e308, float("nan"), float("inf")),
            "clock": (None, "x", [], -1, 10**400),
            "utcoffset": (None, "x", 10**9),
            "name": (5, [], {}, True),
            "kwargs": (5, {}),
            "eta": (5, []),
            "retries": ("x", []),
            "runtime": ("x", float("nan")),
            "root_id": (5, []),
            "parent_id": (5, {}),
            "result": (5, {}),
        }.items()
        for value in values
    },
    **{
        f"of a worker: {name} {value!s:.20}": of_worker(**{name: value})
        for name, values in {
            "hostname": (None, 5, []),
            "freq": (None, "x", 0, -1, float("inf")),
            "active": ("x", []),
            "processed": ("x", {}),
            "loadavg": ("x", ["x"], [None]),
            "sw_ident": (5, []),
        }.items()
        for value in values
    },
}
# A field that is not known is left out, and the event is taken.
ODD = {
    **{
        f"a task with {name}": of_task(**{name: "x"})
        for name in ("state", "worker", "children", "cluster_state", "parent", "root", "ready")
    },
    **{
        f"a worker with {name}": of_worker(**{name: "x"})
        for name in ("heartbeats", "event", "alive", "id", "status_string")
    },
    "a name of markup": of_task(name="<script>alert(1)</script>\n\x1b[31m"),
    "several": published([_task(), _task(type="task-started")]),
}
