"""Beat goes on and sends only its own task, whatever its keys in Redis hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from producer.cluster.local import running, start_redis
from rankmill.broker import CONTROL_QUEUE, TICK
from rankmill.ledger.client import connect
from rankmill.settings import settings
from tests.conftest import forget_settings
from tests.support.inputs import wait_for
from tests.support.outages import BEAT

PREFIX = "rankmill:beat:"
SCHEDULE, STATICS, LOCK = (f"{PREFIX}:{name}" for name in ("schedule", "statics", "lock"))
OWN = f"{PREFIX}{TICK}"
FOREIGN = {"name": "evil", "task": "rankmill.submit", "args": [], "kwargs": {"spec": {}}}
FOREIGN |= {"options": {}, "enabled": True}
FOREIGN |= {"schedule": {"__type__": "interval", "every": 0.1, "relative": False}}
DATE = {"__type__": "datetime", "month": 1, "day": 1}


def entry(client: redis.Redis, key: str, definition: str, meta: str = "") -> None:
    client.delete(key)
    client.hset(key, mapping={"definition": definition, "meta": meta})
    client.zadd(SCHEDULE, {key: 1})


def retype(client: redis.Redis, key: str, kind: str) -> None:
    client.delete(key)
    if kind == "list":
        client.lpush(key, "x")
    else:
        client.set(key, "x")


Breaks = dict[str, Callable[[redis.Redis], object]]

CONTENT: Breaks = {
    "an entry of another task": lambda r: entry(r, f"{PREFIX}evil", json.dumps(FOREIGN)),
    "a name without an entry": lambda r: r.zadd(SCHEDULE, {f"{PREFIX}gone": 1, "": 2}),
    "an entry that is not JSON": lambda r: entry(r, f"{PREFIX}x", "{not JSON"),
    "an entry without fields": lambda r: entry(r, f"{PREFIX}y", "{}"),
    "a foreign entry of another type": lambda r: (
        retype(r, f"{PREFIX}z", "list"),
        r.zadd(SCHEDULE, {f"{PREFIX}z": 1}),
    ),
    "its own entry as another task": lambda r: entry(r, OWN, json.dumps(FOREIGN)),
    "its own entry that is not JSON": lambda r: entry(r, OWN, "[", "["),
    "a last run that is a number": lambda r: r.hset(OWN, "meta", '{"last_run_at": 7}'),
    "a last run to come": lambda r: r.hset(
        OWN, "meta", json.dumps({"last_run_at": DATE | {"year": 9999}})
    ),
    "a last run in the year 1": lambda r: r.hset(
        OWN, "meta", json.dumps({"last_run_at": DATE | {"year": 1}})
    ),
    "its own entry not listed": lambda r: r.zrem(SCHEDULE, OWN),
    "its own entry listed for later": lambda r: r.zadd(SCHEDULE, {OWN: 1e300}),
}
TYPES: Breaks = {
    "its own entry of another type": lambda r: retype(r, OWN, "list"),
    "a schedule of another type": lambda r: retype(r, SCHEDULE, "string"),
    "statics of another type": lambda r: retype(r, STATICS, "string"),
    "a lock of another type": lambda r: retype(r, LOCK, "list"),
    "a lock that never expires": lambda r: retype(r, LOCK, "string"),
}


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with start_redis() as (url, _), pytest.MonkeyPatch.context() as patch:
        for name, value in {"BROKER_URL": url, "TICK_S": "0.5", "LOG_FORMAT": "json"}.items():
            patch.setenv(f"RANKMILL_{name}", value)
        forget_settings()
        yield connect(settings())
    forget_settings()


def test_beat_sends_its_task_alone_whatever_is_in_redis(
    client: redis.Redis, tmp_path: Path
) -> None:
    log = tmp_path / "beat.log"
    at_once: Breaks = {"all content": lambda r: [breaks(r) for breaks in CONTENT.values()]}
    for breaks in [*at_once.values(), *TYPES.values()]:
        breaks(client)
    with running(BEAT, {}, log) as beat:
        wait_for(lambda: client.llen(CONTROL_QUEUE) >= 2, 30)
        for name, breaks in {**at_once, **TYPES}.items():
            breaks(client)
            n_sent = client.llen(CONTROL_QUEUE)
            wait_for(lambda n_sent=n_sent: client.llen(CONTROL_QUEUE) > n_sent + 1, 20)
            assert beat.poll() is None, name
    sent = client.lrange(CONTROL_QUEUE, 0, -1)
    assert {json.loads(message)["headers"]["task"] for message in sent} == {TICK}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in lines if "exception" in line or line["level"] == "critical"]
