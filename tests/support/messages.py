"""Messages as they are in Redis: Celery's inside kombu's envelope, and what is wrong with some."""

from __future__ import annotations

import base64
import bz2
import json
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rankmill.broker import CONTROL_QUEUE, FINALIZE, NOTIFY, PREPARE, SCORE_SHARD, SUBMIT, TICK

JOB = {"job_id": "0123456789ab", "output_uri": "/nowhere"}
SHARD = {**JOB, "shard_index": 0, "n_shards": 1, "start_row": 0, "stop_row": 1}
SPEC = {"input_uri": "/nowhere", "output_uri": "/nowhere-either", "model_id": "null"}
EVENT = {
    **JOB,
    "event_id": "e1",
    "kind": "gate",
    "occurred_at": "2026-11-21T06:00:00Z",
    "state": "running",
}
GOOD_BODY = json.dumps([[], {"spec": SPEC}, {}]).encode()


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path(self._mark),)


def parts(body: bytes, name: object = SUBMIT) -> dict[str, Any]:
    """Return a message as Celery's protocol 2 has it, with nothing that it may leave out."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": name, "id": str(uuid.uuid4())},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": CONTROL_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def envelope(body: bytes, name: object = SUBMIT, /, **changes: Any) -> bytes:
    """Return a message with some of its parts replaced."""
    return json.dumps({**parts(body, name), **changes}).encode()


def call(name: str, kwargs: object, args: object = ()) -> bytes:
    return envelope(json.dumps([args, kwargs, {}]).encode(), name)


def shard(**changes: object) -> bytes:
    return call(SCORE_SHARD, {"shard": {**SHARD, **changes}})


def spec(**changes: object) -> bytes:
    return call(SUBMIT, {"spec": {**SPEC, **changes}})


def event(**changes: object) -> bytes:
    return call(NOTIFY, {"event": {**EVENT, **changes}})


def header(**changes: object) -> bytes:
    """Return a good message, with headers added or replaced."""
    message = parts(GOOD_BODY)
    message["headers"] |= changes
    return json.dumps(message).encode()


def prop(**changes: object) -> bytes:
    """Return a good message, with properties added or replaced."""
    message = parts(GOOD_BODY)
    message["properties"] |= changes
    return json.dumps(message).encode()


def info(**changes: object) -> bytes:
    return prop(delivery_info={"exchange": "", "routing_key": CONTROL_QUEUE, **changes})


def without(part: str, name: str = "") -> bytes:
    """Return a good message without a part of it, or without a header or a property."""
    message = parts(GOOD_BODY)
    del (message[part] if name else message)[name or part]
    return json.dumps(message).encode()


def embedding(embed: object) -> bytes:
    return envelope(json.dumps([[], {"spec": SPEC}, embed]).encode())


def _at(**ahead: int) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


# By its name: a message, and a part of the one line that refuses it.
BAD_ARGUMENTS: dict[str, tuple[bytes, str]] = {
    "a shard of version 0": (shard(version=0), "score_shard: shard.version 0 should be"),
    "a shard with an unknown field": (shard(nope=1), "score_shard: unknown option shard.nope"),
    "a shard with a text for a number": (shard(start_row="many"), "shard.start_row '"),
    "a shard with a huge number": (shard(start_row=10**400), "shard.start_row"),
    "a shard that is a list": (call(SCORE_SHARD, {"shard": [1]}), "score_shard: shard ["),
    "a shard with another key for a name": (shard(job_id="a:claim"), "shard.job_id '"),
    "a shard with a new line in its name": (shard(job_id="a\nb"), "shard.job_id '"),
    "no shard": (call(SCORE_SHARD, {}), "score_shard: shard is missing"),
    "an unknown argument": (call(SUBMIT, {"spec": SPEC, "force": 1}), "unknown option force"),
    "arguments by place": (call(SUBMIT, {}, [SPEC]), "its arguments go by name"),
    "arguments of a tick": (call(TICK, {"x": 1}), "tick: unknown option x"),
    "a job that is a number": (call(FINALIZE, {**JOB, "job_id": 5}), "job_id 5 should be"),
    "a place that is a list": (call(PREPARE, {**JOB, "output_uri": []}), "prepare: output_uri"),
    "a place of 5,000 letters": (call(PREPARE, {**JOB, "output_uri": "x" * 5000}), "output_uri"),
    "a half of a character": (
        envelope(b'[[], {"job_id": "0123456789ab", "output_uri": "/\\ud800"}, {}]', PREPARE),
        "output_uri should be a valid string",
    ),
    "an unknown kind of event": (event(kind="x"), "notify: event.kind 'x'"),
    "an event whose id has a new line": (event(event_id="a\r\nX: y"), "notify: event.event_id"),
    "an event whose job has a new line": (event(job_id="a\r\nX: y"), "notify: event.job_id"),
    "an event with text of its own": (event(text="x"), "unknown option event.text"),
    "arguments with a type": (
        spec(shard_pairs={"__type__": "decimal", "__value__": "1e999999999"}),
        "hold an object with __type__",
    ),
    "arguments nested deep": (spec(shard_pairs=nested(200)), "nested more than 32 deep"),
    "arguments nested beyond JSON": (
        envelope(b'[[], {"spec": ' + b"[" * 5000 + b"]" * 5000 + b"}, {}]"),
        "its body is not JSON",
    ),
    "a number of 5,000 digits": (
        envelope(b'[[], {"spec": ' + b"9" * 5000 + b"}, {}]"),
        "its body is not JSON",
    ),
}

BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "a body that is a number": (envelope(b"5"), "submit: its body is not JSON"),
    "a body of two": (envelope(b"[1, 2]"), "submit: its body is not JSON"),
    "a body of four": (envelope(b"[[], {}, {}, {}]"), "submit: its body is not JSON"),
    "a body of numbers": (envelope(b"[1, 2, 3]"), "submit: its body is not JSON"),
    "a body that is an object": (envelope(b'{"a": 1, "b": 2, "c": 3}'), "its body is not JSON"),
    "a body of protocol 1": (
        envelope(json.dumps({"task": SUBMIT, "id": "x", "args": [], "kwargs": {}}).encode()),
        "submit: its body is not JSON",
    ),
    "a body cut short": (envelope(b'[[], {"spec"'), "submit: its body is not JSON"),
    "no body": (envelope(b""), "submit: its body is not JSON"),
    "a body that is not in base64": (envelope(b"", body="[[], {}, {}]"), "its body is not JSON"),
    "a body of null": (envelope(b"", body=None), "body"),
    "a body that is a list": (envelope(b"", body=[[], {}, {}]), "body"),
    "YAML": (
        envelope(b"[[], {}, {}]", **{"content-type": "application/x-yaml"}),
        "application/x-yaml is not accepted, only JSON",
    ),
    "a pickle": (
        envelope(
            pickle.dumps([[], {"spec": Bomb("/tmp/rankmill-unpickled")}, {}]),
            **{"content-type": "application/x-python-serialize"},
        ),
        "application/x-python-serialize is not accepted, only JSON",
    ),
    "a type of null": (envelope(GOOD_BODY, **{"content-type": None}), "content-type"),
    "JSON with a charset": (
        envelope(GOOD_BODY, **{"content-type": "application/json; charset=utf-8"}),
        "is not accepted, only JSON",
    ),
    "an encoding that unpacks": (
        envelope(GOOD_BODY, **{"content-encoding": "zlib"}),
        "its encoding is zlib, not utf-8",
    ),
    "an encoding of null": (envelope(GOOD_BODY, **{"content-encoding": None}), "content-encoding"),
    "callbacks": (
        embedding({"callbacks": [{"task": SUBMIT, "args": [], "kwargs": {}}]}),
        "embedded.callbacks",
    ),
    "errbacks": (embedding({"errbacks": [{"task": SUBMIT}]}), "embedded.errbacks"),
    "a chain": (embedding({"chain": [{"task": SUBMIT}]}), "embedded.chain"),
    "a chord": (embedding({"chord": {"task": SUBMIT}}), "embedded.chord"),
    "an unknown embed": (embedding({"headers": {}}), "embedded.headers"),
    "an embed that is a text": (embedding("x"), "submit: its body is not JSON"),
    "no embed": (envelope(b"[[], {}, []]"), "submit: its body is not JSON"),
}

BAD_HEADERS: dict[str, tuple[bytes, str]] = {
    "an unknown task": (call("os.system", {"command": "id"}), "there is no task os.system"),
    **{
        f"a built-in task, {name}": (call(f"celery.{name}", {}), f"there is no task celery.{name}")
        for name in (
            *("backend_cleanup", "chord_unlock", "starmap", "map", "chunks"),
            *("group", "chain", "chord", "accumulate"),
        )
    },
    "a task with a new line": (call("a\nb", {}), "there is no task a\\nb"),
    "a task that is not a text": (envelope(b"[[], {}, {}]", ["a"]), "headers.task"),
    "a task of 9,000 letters": (call("x" * 9000, {}), "headers.task"),
    "a task with an escape": (call("\x1b[2J", {}), "there is no task \\x1b[2J"),
    "no headers": (without("headers"), "headers is missing"),
    "empty headers": (envelope(GOOD_BODY, headers={}), "headers.task is missing"),
    "headers of null": (envelope(GOOD_BODY, headers=None), "headers"),
    "headers that are a text": (envelope(GOOD_BODY, headers="x"), "headers"),
    "headers that are a list": (envelope(GOOD_BODY, headers=[["task", SUBMIT]]), "headers"),
    "no id": (without("headers", "id"), "headers.id is missing"),
    "an id of null": (header(id=None), "headers.id"),
    "an id that is a list": (header(id=["x"]), "headers.id"),
    "an id with a new line": (header(id="a\nb"), "headers.id"),
    "an empty id": (header(id=""), "headers.id"),
    "an id of 9,000 letters": (header(id="x" * 9000), "headers.id"),
    "a time limit of texts": (header(timelimit=["a", "b"]), "headers.timelimit"),
    "a time limit that kills": (header(timelimit=[0.001, None]), "headers.timelimit"),
    "a time limit that is a number": (header(timelimit=5), "headers.timelimit"),
    "a time limit of three": (header(timelimit=[None, None, None]), "headers.timelimit"),
    "a start that is a list": (header(eta=[5]), "headers.eta"),
    "a start that is a number": (header(eta=5), "headers.eta"),
    "a start that is a word": (header(eta="tomorrow"), "headers.eta 'tomorrow' is not a time"),
    "a start in week 3": (header(eta="2026-W03-1"), "headers.eta"),
    "a start tomorrow": (header(eta=_at(days=1)), "more than 6 hours ahead"),
    "a start in 2200": (header(eta="2200-01-01T00:00:00"), "more than 6 hours ahead"),
    "a start in year 1": (header(eta="0001-01-01T00:00:00+14:00"), "is before 2000"),
    "a start in month 13": (header(eta="2026-13-01T00:00:00"), "headers.eta"),
    "an end that is a list": (header(expires=[5]), "headers.expires"),
    "an end that is a number": (header(expires=5), "headers.expires"),
    "an end that is a word": (header(expires="never"), "headers.expires 'never' is not a time"),
    "an end in year 9999": (header(expires="9999-12-31T23:59:59-14:00"), "hours ahead"),
    "an end of a job's work": (
        header(expires=_at(hours=1), id="0123456789ab-00003"),
        "is the work of a job, which does not expire",
    ),
    "retries that are a text": (header(retries="1"), "headers.retries"),
    "retries below 0": (header(retries=-1), "headers.retries"),
    "too many retries": (header(retries=10**9), "headers.retries"),
    "retries that are true": (header(retries=True), "headers.retries"),
    "retries that are a half": (header(retries=1.5), "headers.retries"),
    "a group that is a list": (header(group=[1]), "headers.group"),
    "a group's index that is a text": (header(group_index="1"), "headers.group_index"),
    "a root that is a number": (header(root_id=5), "headers.root_id"),
    "a parent that is an object": (header(parent_id={}), "headers.parent_id"),
    "a description that is a list": (header(argsrepr=[]), "headers.argsrepr"),
    "a description of 9,000 letters": (header(kwargsrepr="x" * 9000), "headers.kwargsrepr"),
    "an origin that is a number": (header(origin=1), "headers.origin"),
    "a result that is a text": (header(ignore_result="yes"), "headers.ignore_result"),
    "another name": (header(shadow="rankmill.tick"), "headers.shadow"),
    "stamps": (header(stamped_headers=["a"], stamps={"a": 1}), "headers.stamp"),
    "stamps that are a list": (header(stamps=[1]), "headers.stamps"),
    "a delivery that is a text": (header(redelivered="x"), "headers.redelivered"),
    "callbacks in a header": (header(callbacks=[{"task": SUBMIT}]), "headers.callbacks"),
    "a chord in a header": (header(chord={"task": SUBMIT}), "headers.chord"),
    "a chain in a header": (header(chain=[{"task": SUBMIT}]), "headers.chain"),
    "a reply in a header": (header(reply_to="x"), "headers.reply_to"),
    "a host in a header": (header(hostname="x"), "headers.hostname"),
    "a header that is unknown": (header(x=1), "headers.x"),
    "a compressed body": (
        json.dumps(
            {
                **parts(bz2.compress(b" " * 10**7)),
                "headers": {"task": SUBMIT, "id": "x", "compression": "application/x-bz2"},
            }
        ).encode(),
        "headers.compression",
    ),
}

BAD_PROPERTIES: dict[str, tuple[bytes, str]] = {
    "no properties": (without("properties"), "properties is missing"),
    "properties of null": (envelope(GOOD_BODY, properties=None), "properties"),
    "properties that are a list": (envelope(GOOD_BODY, properties=[]), "properties"),
    "empty properties": (envelope(GOOD_BODY, properties={}), "properties.delivery_info is missing"),
    "no tag": (without("properties", "delivery_tag"), "properties.delivery_tag is missing"),
    "a tag of null": (prop(delivery_tag=None), "properties.delivery_tag"),
    "a tag that is a number": (prop(delivery_tag=5), "properties.delivery_tag"),
    "a tag that is a list": (prop(delivery_tag=[5]), "properties.delivery_tag"),
    "an empty tag": (prop(delivery_tag=""), "properties.delivery_tag"),
    "no delivery": (without("properties", "delivery_info"), "properties.delivery_info is missing"),
    "a delivery of null": (prop(delivery_info=None), "properties.delivery_info"),
    "a delivery that is a list": (prop(delivery_info=[]), "properties.delivery_info"),
    "an empty delivery": (prop(delivery_info={}), "delivery_info.exchange is missing"),
    "a delivery to another key": (info(routing_key="rankmill:running"), "routing_key"),
    "a delivery to a list": (info(routing_key=[CONTROL_QUEUE]), "routing_key"),
    "a delivery to nothing": (info(routing_key=""), "routing_key"),
    "an exchange of null": (info(exchange=None), "exchange"),
    "an exchange with a separator": (info(exchange="a\x06\x16b"), "exchange"),
    "an unknown field of delivery": (info(x=1), "delivery_info.x"),
    "no encoding of the body": (without("properties", "body_encoding"), "body_encoding is missing"),
    "an unknown encoding of the body": (prop(body_encoding="rot13"), "properties.body_encoding"),
    "an encoding of the body that is a list": (prop(body_encoding=[]), "properties.body_encoding"),
    "a priority that is a text": (prop(priority="high"), "properties.priority"),
    "a priority below 0": (prop(priority=-1), "properties.priority"),
    "a priority that is a list": (prop(priority=[9]), "properties.priority"),
    "an unknown mode": (prop(delivery_mode=7), "properties.delivery_mode"),
    "a correlation that is a list": (prop(correlation_id=[]), "properties.correlation_id"),
    "a reply that is an object": (prop(reply_to={}), "properties.reply_to"),
    "a property that is unknown": (prop(x=1), "properties.x"),
}

BAD_ENVELOPES: dict[str, tuple[bytes, str]] = {
    "a huge message": (spec(input_uri="x" * 3 * 2**20), "larger than 1,048,576 bytes"),
    "no JSON": (b"*3\r\nnot a message", "it is not an object"),
    "nothing": (b"", "it is not an object"),
    "bytes": (bytes(range(256)), "it is not an object"),
    "a number": (b"5", "it is not an object"),
    "null": (b"null", "it is not an object"),
    "a text": (b'"x"', "it is not an object"),
    "a list": (b"[1]", "it is not an object"),
    "an empty object": (b"{}", "body is missing"),
    "a typed object": (b'{"__type__": "decimal", "__value__": "1e999999999"}', "is missing"),
    "JSON nested deep": (b"[" * 100_000, "it is not an object"),
    "JSON cut short": (envelope(GOOD_BODY)[:-5], "it is not an object"),
    "two messages": (envelope(GOOD_BODY) * 2, "it is not an object"),
    "UTF-16": (envelope(GOOD_BODY).decode().encode("utf-16"), "it is not an object"),
    "an unknown part": (envelope(GOOD_BODY, x=1), "unknown option x"),
}

BAD = BAD_ARGUMENTS | BAD_BODIES | BAD_HEADERS | BAD_PROPERTIES | BAD_ENVELOPES

# What Celery itself writes, and what its clients in other languages do.
GOOD: dict[str, bytes] = {
    "as few parts as possible": envelope(GOOD_BODY),
    "a shard": shard(),
    "a tick of beat": call(TICK, {}),
    "a later start": header(eta=_at(hours=5)),
    "a later start in local time": header(eta=datetime.now().isoformat()),
    "an end": header(expires=_at(days=2)),
    "headers of tracing": header(traceparent="00-x-y-01", baggage="a=b", tracestate="a=b"),
    "a restored message": info(redelivered=True),
    "a message of a group": header(group=str(uuid.uuid4()), group_index=0),
    "a message of celery-node": envelope(
        GOOD_BODY,
        headers={
            **{"lang": "js", "task": SUBMIT, "id": str(uuid.uuid4())},
            **dict.fromkeys(("shadow", "eta", "expires", "group", "root_id", "parent_id")),
            **{"retries": 0, "timelimit": [None, None], "origin": "1@host"},
            **{"argsrepr": "[]", "kwargsrepr": "{}"},
        },
    ),
    "a message of a newer release": shard(version=2),
    "a message without an embed": embedding(None),
}
