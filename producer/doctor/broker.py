"""Check Redis: it answers, its version will do, and it keeps what it is given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis

from producer.doctor.finding import Finding, ok, problem, warning
from rankmill.broker import CONTROL_QUEUE, VISIBILITY_TIMEOUT_S, lists_of, score_queues
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import broker_errors, connect
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import (
    WORKERS_KEYS,
    check_facts,
    check_takes_writes,
    check_types,
    name_of,
)
from rankmill.settings import Settings

# A live worker puts back what is due about every 100 seconds.
_RESTORED_AFTER_S = 300


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Check the Redis of the settings, and whether workers take its queues."""
    if "broker_url" not in settings.model_fields_set:
        yield warning(
            "redis",
            "no cluster is set in RANKMILL_BROKER_URL; `rankmill run` needs none",
            "set RANKMILL_BROKER_URL to use a cluster",
        )
        return
    try:
        client = connect(settings)
        with broker_errors():
            client.ping()
    except (BrokerUnavailable, InputError) as error:
        yield problem(
            "redis",
            str(error),
            "start Redis, or correct RANKMILL_BROKER_URL; `rankmill run` needs none",
        )
        return
    try:
        with broker_errors():
            facts: dict[str, Any] = client.info()
    except BrokerUnavailable as error:
        yield warning("redis", str(error), "give this user +info, as docker/redis/users.acl does")
        return
    try:
        check_facts(facts)
    except InputError as error:
        yield problem("redis", str(error), "name another server in RANKMILL_BROKER_URL")
        return
    yield ok("redis", f"{name_of(facts)} answers")
    try:
        check_takes_writes(Ledger.connect(settings).redis)
    except BrokerUnavailable as error:
        yield problem(
            "redis writes",
            str(error),
            "let Redis take writes; until then workers wait, and no job is accepted",
        )
    yield from _messages(client)
    policy = str(facts.get("maxmemory_policy", ""))
    if policy == "noeviction":
        yield ok("redis policy", "noeviction")
    else:
        yield problem(
            "redis policy",
            f"maxmemory-policy is {policy}: a full Redis would drop work",
            "redis-cli config set maxmemory-policy noeviction, and in redis.conf",
        )
    yield from _workers(settings)
    if not facts.get("aof_enabled"):
        yield warning(
            "redis keeps",
            "no append-only file: a restart forgets its queues, which workers fill again",
            "redis-cli config set appendonly yes, and in redis.conf",
        )
    if facts.get("maxmemory"):
        used = facts["used_memory"] / facts["maxmemory"]
        if used > 0.8:
            yield warning("redis memory", f"{used:.0%} of its limit is used", "raise maxmemory")


def _messages(client: redis.Redis) -> Iterator[Finding]:
    """Check Celery's keys: their types, and that messages of dead workers get back to a queue."""
    lists = dict.fromkeys(lists_of((CONTROL_QUEUE, *score_queues())), "LLEN")
    late = time.time() - VISIBILITY_TIMEOUT_S - _RESTORED_AFTER_S
    try:
        check_types(client, lists | WORKERS_KEYS)
    except BrokerUnavailable as error:
        yield problem("redis keys", str(error), "until then workers wait")
        return
    try:
        with broker_errors(), client.pipeline(transaction=True) as pipe:
            pipe.hlen("unacked")
            pipe.zcard("unacked_index")
            pipe.zcount("unacked_index", 0, late)
            pipe.pttl("unacked_mutex")
            n_taken, n_listed, n_late, lock_ms = pipe.execute()
    except BrokerUnavailable as error:
        yield warning("redis keys", str(error), "give this user what docker/redis/users.acl does")
        return
    if lock_ms == -1:
        yield problem(
            "redis keys",
            "unacked_mutex never expires: messages of dead workers do not get back to a queue",
            "redis-cli DEL unacked_mutex",
        )
    elif n_late:
        yield warning(
            "redis keys",
            f"unacked_index has {n_late:,} messages of dead workers that no worker has put back",
            "start rankmill worker; it puts them back within two minutes",
        )
    if n_taken > n_listed:
        yield warning(
            "redis keys",
            f"unacked has {n_taken - n_listed:,} messages that unacked_index lacks: they are lost",
            "stop all workers, then redis-cli DEL unacked unacked_index; unfinished jobs go on",
        )


def _workers(settings: Settings) -> Iterator[Finding]:
    ledger = Ledger.connect(settings)
    try:
        n_takers = ledger.workers.n_takers((CONTROL_QUEUE, *score_queues()))
        for queue, n in n_takers.items():
            if n:
                yield ok("workers", f"{n} take {queue}")
            else:
                yield warning(
                    "workers",
                    f"no live worker takes {queue}: submitted jobs wait",
                    "start rankmill worker; `rankmill run` needs none",
                )
        for worker, reasons in ledger.declines.unfit(ledger.now()).items():
            yield warning(
                "workers",
                f"declines work: {worker}: {reasons}",
                "repair that host, or give it the settings of the others; others take the work",
            )
    except BrokerUnavailable as error:
        yield warning("workers", str(error), "check Redis and the rights of its users")
