"""A primary, a replica and three sentinels, each with a password, on ports of loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis

from producer.cluster.local import running
from tests.support.inputs import wait_for
from tests.support.redis_server import free_port, server_program

MASTER = "night"
PASSWORD = "primary/secret"
SENTINEL_PASSWORD = "sentinels-secret"
_N_SENTINELS = 3


@dataclass
class Watched:
    """The servers by port, and the sentinels that watch them.

    Attributes:
        url: the broker URL that names the sentinels.
    """

    servers: dict[int, subprocess.Popen[bytes]]
    sentinels: list[int]

    @property
    def url(self) -> str:
        first, *others = (f"sentinel://127.0.0.1:{port}" for port in self.sentinels)
        login = f":{PASSWORD}@".replace("/", "%2F")
        return ";".join([first.replace("://", f"://{login}"), *others])

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RANKMILL_BROKER_URL": self.url,
            "RANKMILL_BROKER_MASTER": MASTER,
            "RANKMILL_BROKER_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    def primary(self) -> int:
        """Return the port of the primary, as the first sentinel sees it."""
        _, port = self._ask("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(port)

    def fail_over(self) -> None:
        """Have the sentinels make the replica the primary; return when they have."""
        before = self.primary()
        self._ask("SENTINEL FAILOVER", MASTER)
        wait_for(lambda: self.primary() != before, 20)

    def kill_primary(self) -> None:
        self.servers.pop(self.primary()).kill()

    def _ask(self, *command: str) -> Any:
        port = self.sentinels[0]
        client = redis.Redis(port=port, password=SENTINEL_PASSWORD, decode_responses=True)
        return cast(Any, client).execute_command(*command)


@contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """Yield a primary with a replica, when three sentinels have found each other."""
    program = server_program(folder)
    ports = [free_port() for _ in range(2 + _N_SENTINELS)]
    primary, replica, *sentinels = ports
    common = ["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"]
    login = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
    with ExitStack() as stack:

        def start(port: int, *options: str) -> subprocess.Popen[bytes]:
            own = folder / str(port)
            own.mkdir()
            command = [program, *options, "--port", str(port), "--dir", str(own)]
            return stack.enter_context(running(command, {}, own / "log"))

        follows = ["--replicaof", f"127.0.0.1 {primary}"]
        servers = {
            port: start(port, *common, *login, *(follows if port == replica else ()))
            for port in (primary, replica)
        }
        wait_for(lambda: "Ready to accept" in (folder / str(primary) / "log").read_text(), 20)
        for port in sentinels:
            settings = folder / f"sentinel-{port}.conf"
            settings.write_text(
                f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {primary} 2\n"
                f"sentinel auth-pass {MASTER} {PASSWORD}\n"
                f"sentinel down-after-milliseconds {MASTER} 800\n"
                f"sentinel failover-timeout {MASTER} 4000\n"
            )
            start(port, str(settings), "--sentinel", "--bind", "127.0.0.1")
        found = Watched(servers, sentinels)
        wait_for(lambda: _others(found) == (1, _N_SENTINELS - 1), 30)
        yield found


def _others(found: Watched) -> tuple[int, int]:
    try:
        facts = found._ask("SENTINEL MASTER", MASTER)
    except redis.ConnectionError:
        return 0, 0
    facts = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
    return int(facts["num-slaves"]), int(facts["num-other-sentinels"])
