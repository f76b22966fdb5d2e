"""Messages to a real worker: malformed, hostile, damaged, and good ones."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import redis

from rankmill.broker import CONTROL_QUEUE, app
from rankmill.settings import settings
from tests.support.hostile.cases import Case
from tests.support.hostile.mutants import mutants
from tests.support.messages import BAD, GOOD
from tests.support.remote_control import COMMANDS


def message_cases(log: Path, n_each: int) -> Iterator[Case]:
    """Send each message to the worker, and wait until it answers again.

    Args:
        log: the worker's log, in which it refuses messages.
        n_each: the damaged versions of each good message.
    """
    messages = {name: message for name, (message, _) in BAD.items()} | GOOD
    for seed, (name, message) in enumerate(GOOD.items()):
        for number, mutant in enumerate(mutants(message, n_each, seed)):
            messages[f"{name} {number}"] = mutant
    for name, message in messages.items():
        yield Case("messages", name, partial(_deliver, partial(_push, message), log))
    for name, (command, _) in COMMANDS.items():
        send = partial(_publish, command)
        yield Case("messages", f"remote control: {name}", partial(_deliver, send, log))


def _push(message: bytes, client: redis.Redis) -> None:
    client.lpush(CONTROL_QUEUE, message)
    while client.llen(CONTROL_QUEUE):
        time.sleep(0.01)


def _publish(command: bytes, client: redis.Redis) -> None:
    client.publish("/0.celery.pidbox", command)


def _deliver(send: Callable[[redis.Redis], None], log: Path) -> None:
    """Send a message and end as the worker's new lines say: refused, or without any."""
    before = log.stat().st_size
    url = settings().broker_url.replace("redis+socket://", "unix://")
    send(redis.Redis.from_url(url))
    # It reads its messages in order, so that it has handled this one when it answers.
    while not app().control.ping(timeout=5, limit=1):
        pass
    with log.open("rb") as file:
        file.seek(before)
        said = file.read().decode(errors="replace")
    for line in said.splitlines():
        if "message refused" in line:
            print(f"rankmill: {line}", file=sys.stderr)
        elif "Traceback" in line:
            os.write(2, said.encode())
    if "message refused" in said:
        raise SystemExit(2)
