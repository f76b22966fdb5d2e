"""The connection to Redis, its errors as BrokerUnavailable, and the names of a job's keys."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, no_type_check
from urllib.parse import urlsplit

import kombu.exceptions
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from rankmill.broker_url import is_sentinel, sentinels
from rankmill.errors import BrokerUnavailable, CommandRejected, EntryBroken, InputError
from rankmill.ledger.lock import WatchedLock
from rankmill.settings import Settings, settings

# What Redis answers while it cannot work, and what to do. The same command may succeed later.
_REMEDIES = {
    "OOM": "raise its maxmemory, or remove what else it holds",
    "READONLY": "it is a replica; name the primary in RANKMILL_BROKER_URL",
    "NOREPLICAS": "bring its replicas back, or lower min-replicas-to-write",
    "MASTERDOWN": "it is a replica whose primary is away; name the primary in RANKMILL_BROKER_URL",
    "NOPERM": "give user {user} the rights that docker/redis/users.acl names",
    "MISCONF": "it cannot save to its disk; see its log",
    "BUSY": "it runs a script of another client; SCRIPT KILL ends that",
    "LOADING": "it reads its data after a start; wait",
    "max number of clients": "raise its maxclients, or close what else is connected",
    "CLUSTERDOWN": "it is a cluster, which is not supported",
    "MOVED": "it is a cluster, which is not supported",
}

# redis-py cuts the first word off the answers that have a class of their own.
_WORDS = {
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.MovedError: "MOVED",
}


def connect(settings: Settings) -> redis.Redis:
    """Return a client of the broker's Redis, which connects at its first use and retries."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "replace",  # else one garbled name is an error for all readers
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "health_check_interval": 15,
        "retry": Retry(ExponentialBackoff(cap=1, base=0.05), 4),
        # A primary has become a replica: its name may lead to another server by now.
        "retry_on_error": [redis.exceptions.ReadOnlyError],
        "client_name": "rankmill",
        **tls_options(settings),
    }
    if not is_sentinel(settings.broker_url):
        url = settings.broker_url.replace("redis+socket://", "unix://")
        return _Client.from_pool(FrugalPool.from_url(url, **options))
    place = sentinels(settings.broker_url)
    found: redis.Redis = Sentinel(
        place.addresses, sentinel_kwargs=sentinel_options(settings)
    ).master_for(
        str(settings.broker_master),
        redis_class=_Client,
        connection_pool_class=FrugalSentinelPool,
        username=place.username,
        password=place.password,
        db=place.database,
        ssl=settings.broker_tls,
        **options,
    )
    return found


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """Return how to connect to the sentinels of a broker: login, certificate, timeouts."""
    secret = settings.broker_sentinel_password
    login = {
        "username": settings.broker_sentinel_user,
        "password": secret.get_secret_value() if secret else None,
    }
    return {
        "socket_timeout": 3,
        "socket_connect_timeout": 3,
        **{name: value for name, value in login.items() if value is not None},
        **({"ssl": True, **tls_options(settings)} if settings.broker_tls else {}),
    }


@lru_cache(maxsize=1)
def shared_client(settings: Settings) -> redis.Redis:
    """Return the client whose connections all of this process shares."""
    client = connect(settings)
    # Channels hold its pool and may outlive it, for example where other settings replace it.
    client.auto_close_connection_pool = False
    return client


class FrugalPool(redis.ConnectionPool):
    """A pool that keeps one idle connection; threads that need more at once get them."""

    def release(self, connection: Any) -> None:
        """Return a connection to the pool and close the others that are idle."""
        with self._lock:
            super().release(connection)
            for spare in self._available_connections[:-1]:
                spare.disconnect()


class FrugalSentinelPool(FrugalPool, SentinelConnectionPool):
    """The same for the primary that sentinels name."""


class _Client(redis.Redis):
    """A client whose locks need no script, and whose errors of missing rights name the command."""

    @no_type_check  # redis-py has no types here
    def lock(self, *args: Any, **options: Any) -> WatchedLock:
        """Return a lock; the arguments are those of redis-py."""
        return super().lock(*args, **{"lock_class": WatchedLock, **options})

    @no_type_check  # redis-py has no types here
    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)
        except redis.exceptions.NoPermissionError as error:
            key = args[3:4] if args[0] == "EVALSHA" else args[1:2]
            command = " ".join(map(str, (args[0], *key)))
            raise redis.exceptions.NoPermissionError(f"{command}: {error}") from error


def tls_options(settings: Settings) -> dict[str, Any]:
    """Return how to check the certificate of a broker with TLS; empty for other brokers.

    Raises:
        InputError: the CA's file cannot be read.
    """
    is_tls = settings.broker_tls and is_sentinel(settings.broker_url)
    if not is_tls and not settings.broker_url.startswith("rediss://"):
        return {}
    if settings.broker_ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.broker_ca)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"RANKMILL_BROKER_CA: {settings.broker_ca}: {reason}") from error
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": settings.broker_ca,
    }


@contextmanager
def broker_errors(where: str = "") -> Iterator[None]:
    """Raise BrokerUnavailable in place of any error of Redis, or of kombu's connection to it.

    A key of a wrong type is an EntryBroken; `where` names the key.
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
        if "WRONGTYPE" in str(error):
            raise EntryBroken(f"{where or 'a key'} in Redis has a wrong type: {error}") from error
        raise unavailable(error) from error
    except kombu.exceptions.OperationalError as error:
        raise unavailable(error) from error


def unavailable(error: BaseException) -> BrokerUnavailable:
    """Return an error of Redis, or kombu's around one, as one line: its answer, what to do."""
    if not isinstance(error, redis.RedisError):
        error = error.__cause__ or error
    words = [word for kind, word in _WORDS.items() if isinstance(error, kind)]
    words = words or [word for word in _REMEDIES if word in str(error)]
    remedy = f"; {_REMEDIES[words[0]].format(user=_user())}" if words else ""
    if isinstance(error, redis.AuthenticationError):
        return BrokerUnavailable(f"Redis refuses the login of user {_user()}: {error}")
    if words:
        return BrokerUnavailable(f"Redis refuses a command: {error}{remedy}")
    if isinstance(error, redis.ResponseError):
        return CommandRejected(f"Redis refuses a command: {error}")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return BrokerUnavailable(
            f"Redis shows a certificate that is not trusted ({error}); name its CA with "
            "RANKMILL_BROKER_CA, and in RANKMILL_BROKER_URL a host name that the certificate has"
        )
    return BrokerUnavailable(
        f"Redis does not answer ({error}); is it running, is RANKMILL_BROKER_URL right?"
    )


def _user() -> str:
    return urlsplit(settings().broker_url.partition(";")[0]).username or "default"


class JobKeys:
    """The names of a job's keys; `rankmill.ledger.jobs` and `claims` list their contents."""

    def __init__(self, job_id: str) -> None:
        self.hash = f"rankmill:job:{job_id}"
        self.done = f"{self.hash}:done"
        self.inflight = f"{self.hash}:inflight"
        self.tries = f"{self.hash}:tries"
        self.live = f"{self.hash}:live"
        self.trial = f"{self.hash}:trial"
        self.deadly = f"{self.hash}:deadly"
        self.faults = f"{self.hash}:faults"
        self.replaces = f"{self.hash}:replaces"
        self.declined = f"{self.hash}:declined"
        self.all = [
            *(self.hash, self.done, self.inflight, self.tries),
            *(self.live, self.trial, self.deadly, self.faults, self.replaces, self.declined),
        ]

    def claim(self, shard_index: int) -> str:
        """Return the key of a claim, which is not in `all` since it expires by itself."""
        return f"{self.hash}:claim:{shard_index}"
