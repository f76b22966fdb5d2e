"""Check Redis: it answers, its version will do, and it keeps what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from producer.doctor.finding import Finding, ok, problem, warning
from rankmill.broker import CONTROL_QUEUE, score_queues
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import broker_errors, connect
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import check_facts, check_takes_writes, check_types, name_of
from rankmill.settings import Settings


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
    try:
        check_types(client, dict.fromkeys((CONTROL_QUEUE, *score_queues()), "LLEN"))
    except BrokerUnavailable as error:
        yield problem("redis keys", str(error), "until then workers wait")
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
