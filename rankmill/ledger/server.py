"""Which Redis servers are supported: 6.2 and newer, Valkey too, and no cluster."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis

from rankmill.broker_url import NO_CLUSTER
from rankmill.errors import BrokerUnavailable, InputError
from rankmill.ledger.client import broker_errors

_OLDEST = (6, 2)


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
    """Refuse a server that cannot be used; wait elsewhere for one that does not answer.

    Raises:
        InputError: it is a node of a cluster, or too old.
    """
    with suppress(BrokerUnavailable):
        check_server(client)


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
