"""Refuse a server that cannot be used: a Redis before 6.2, a node of a cluster, a read-only one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis

from rankmill.broker_url import NO_CLUSTER
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import JobKeys, broker_errors

_OLDEST = (6, 2)

# The keys that only workers may read, each with a command that reads its type.
WORKERS_KEYS = {
    **{"unacked": "HLEN", "unacked_index": "ZCARD"},
    **{"_kombu.binding.celeryev": "SCARD", "_kombu.binding.celery.pidbox": "SCARD"},
    "_kombu.binding.reply.celery.pidbox": "SCARD",
}


def check_server(client: redis.Redis) -> None:
    """Refuse a server that cannot be used.

    Raises:
        InputError: it is a node of a cluster, or too old.
        BrokerUnavailable: it does not answer.
    """
    with broker_errors():
        try:
            facts = client.info()
        except redis.ResponseError:  # no right to ask, or it cannot work now
            return
    check_facts(facts)


def check_at_start(client: redis.Redis) -> None:
    """Refuse a server that cannot be used; accept one that does not answer yet.

    Raises:
        InputError: it is a node of a cluster, or too old.
    """
    with suppress(BrokerUnavailable):
        check_server(client)


def check_takes_writes(client: redis.Redis) -> None:
    """Check that Redis takes the writes of a job's start: hashes, sets, a queue.

    Call it before anything on storage is changed. Some refuse writes and still answer reads: a
    full Redis, a replica, a primary without its replicas, a user without rights.

    Raises:
        BrokerUnavailable: Redis does not take it.
    """
    # As long as a job's id, since rights of Redis's users depend on the length.
    probe = f"probe-{uuid.uuid4().hex[:6]}"
    job, queue = JobKeys(probe), f"rankmill.{probe}"
    with broker_errors(), client.pipeline(transaction=True) as pipe:
        pipe.hset(job.hash, "state", "probe")
        pipe.setbit(job.done, 0, 1)
        pipe.zadd(job.inflight, {"0": 0})
        pipe.lpush(queue, "")
        pipe.delete(job.hash, job.done, job.inflight)
        pipe.delete(queue)
        pipe.execute()


def check_types(client: redis.Redis, reads: Mapping[str, str]) -> None:
    """Check that keys of Celery have Celery's types, since the errors of Redis name no key.

    Args:
        client: a client of the broker.
        reads: the keys, each with a command that reads its type.

    Raises:
        BrokerUnavailable: a key has another type, or Redis does not answer.
    """
    with broker_errors(), client.pipeline(transaction=False) as pipe:
        for key, read in reads.items():
            pipe.execute_command(read, key)
        answers = pipe.execute(raise_on_error=False)
    answered = zip(reads, answers, strict=True)
    wrong = " ".join(key for key, answer in answered if "WRONGTYPE" in str(answer))
    if wrong:
        raise BrokerUnavailable(f"not Celery's type of key: {wrong}; redis-cli DEL {wrong}")


def check_facts(facts: dict[str, Any]) -> None:
    """Refuse a server by its answer to INFO.

    Raises:
        InputError: it is a node of a cluster, or too old.
    """
    if facts.get("redis_mode") == "cluster" or facts.get("cluster_enabled"):
        raise InputError(f"RANKMILL_BROKER_URL names a node of a cluster; {NO_CLUSTER}")
    version = str(facts["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise InputError(
            f"RANKMILL_BROKER_URL names a Redis {version}, which is too old; use Redis 6.2 or "
            "newer (7 for its users), or Valkey"
        )


def name_of(facts: dict[str, Any]) -> str:
    """Return the product and version of a server."""
    if facts.get("server_name") == "valkey":
        return f"Valkey {facts['valkey_version']}"
    return f"version {facts['redis_version']}"
