"""Redis: reachable, of an age that will do, and keeping what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from producer.doctor.finding import Finding, ok, problem, warning
from rankmill.broker import CONTROL_QUEUE, score_queues
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import broker_errors, connect
from rankmill.ledger.jobs import Ledger
from rankmill.settings import Settings

_OLDEST = (6, 2)


def look_at_redis(settings: Settings) -> Iterator[Finding]:
    try:
        client = connect(settings)
        with broker_errors():
            client.ping()
    except (BrokerUnavailable, InputError) as error:
        yield problem(
            "redis",
            str(error),
            "start Redis, or set RANKMILL_BROKER_URL; `rankmill run` needs none",
        )
        return
    try:
        with broker_errors():
            facts: dict[str, Any] = client.info()
    except BrokerUnavailable as error:
        yield warning("redis", str(error), "give this user +info, as docker/redis/users.acl does")
        return
    yield _version(str(facts["redis_version"]))
    yield _policy(str(facts.get("maxmemory_policy", "")))
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
        for queue in (CONTROL_QUEUE, *score_queues()):
            n_takers = ledger.n_takers(queue)
            if n_takers:
                yield ok("workers", f"{n_takers} take {queue}")
            else:
                yield warning(
                    "workers",
                    f"no live worker takes {queue}: submitted jobs wait",
                    "start rankmill worker; `rankmill run` needs none",
                )
    except BrokerUnavailable as error:
        yield warning("workers", str(error), "look at Redis and its users")


def _version(version: str) -> Finding:
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < _OLDEST:
        return problem("redis", f"version {version}", "use Redis 6.2 or newer, 7 for its users")
    return ok("redis", f"version {version} answers")


def _policy(policy: str) -> Finding:
    if policy == "noeviction":
        return ok("redis policy", "noeviction")
    return problem(
        "redis policy",
        f"maxmemory-policy is {policy}: a full Redis would throw work away",
        "redis-cli config set maxmemory-policy noeviction, and in redis.conf",
    )
