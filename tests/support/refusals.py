"""Make a real Redis refuse commands in each of its ways, and end that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

_NEEDED = "-lpush -hset -zadd -evalsha -brpop"


@contextmanager
def refusing(client: redis.Redis, how: str) -> Iterator[None]:
    """Have the server refuse commands for the block; `how` is one of REFUSALS."""
    folder = client.config_get("dir")["dir"]
    try:
        REFUSALS[how](client)
        yield
    finally:
        _again(client, lambda: client.config_set("maxclients", 4000))
        _again(client, lambda: client.config_set("maxmemory", 0))
        client.replicaof("NO", "ONE")
        client.config_set("min-replicas-to-write", 0)
        client.config_set("save", "")
        client.config_set("dir", folder)
        client.execute_command("ACL SETUSER default on nopass +@all ~* &*")


def _again(client: redis.Redis, change: Callable[[], Any]) -> None:
    """Make a change as soon as the server takes it."""
    for _ in range(300):
        with suppress(redis.RedisError):
            change()
            return
        time.sleep(0.1)
    change()


def _stale(client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", 9)


def _cannot_save(client: redis.Redis) -> None:
    client.config_set("dir", "/proc")
    client.config_set("save", "1 1")
    client.set("x", 1)
    client.bgsave()


def _other_password(client: redis.Redis) -> None:
    client.execute_command("ACL SETUSER default resetpass >another")
    client.execute_command("CLIENT KILL TYPE normal SKIPME yes")


def _too_many(client: redis.Redis) -> None:
    client.config_set("maxclients", 1)
    client.execute_command("CLIENT KILL TYPE normal SKIPME yes")


def _busy(client: redis.Redis) -> None:
    """Run a script for five seconds; a server with one answers BUSY."""
    client.config_set("lua-time-limit", 50)
    script = "local t=redis.call('TIME')[1] while redis.call('TIME')[1]-t < 5 do end return 1"
    pool = client.connection_pool
    other = redis.Redis(
        connection_pool=redis.ConnectionPool(pool.connection_class, **pool.connection_kwargs)
    )

    def run() -> None:
        with suppress(redis.RedisError):
            other.eval(script, 0)

    threading.Thread(target=run, daemon=True).start()
    time.sleep(0.2)


REFUSALS: dict[str, Callable[[redis.Redis], Any]] = {
    "OOM": lambda client: client.config_set("maxmemory", 1),
    "READONLY": lambda client: client.replicaof("127.0.0.1", 9),
    "NOREPLICAS": lambda client: client.config_set("min-replicas-to-write", 1),
    "MASTERDOWN": _stale,
    "NOPERM": lambda client: client.execute_command(f"ACL SETUSER default {_NEEDED}"),
    "MISCONF": _cannot_save,
    "WRONGPASS": _other_password,
    "max number of clients": _too_many,
    "BUSY": _busy,
}
