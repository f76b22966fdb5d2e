"""Each cell of the table of Redis's users in docs/security.md, tried on a real Redis."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from docs.tables import ROLES
from rankmill.settings import CHECKOUT
from tests.support.inputs import wait_for
from tests.support.redis_server import client_of, redis_server

ROWS = json.loads((CHECKOUT / "docs" / "redis-rights.json").read_text())


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    passwords = {f"REDIS_PASSWORD_{role.upper()}": role for role in ROLES}
    render = [CHECKOUT / "docker" / "redis" / "render-acl"]
    rendered = subprocess.run(render, capture_output=True, text=True, env=os.environ | passwords)
    assert rendered.returncode == 0, rendered.stderr
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    path.write_text(rendered.stdout + "user admin on >admin ~* &* +@all\n")
    with redis_server("--aclfile", str(path), "--busy-reply-threshold", "50") as port:
        yield port


@pytest.fixture
def admin(port: int) -> redis.Redis:
    """Return a client with all rights; Redis holds one message in each queue, and beat's entry."""
    client = client_of(port, "admin", "admin")
    client.flushall()
    client.lpush("rankmill.score", "message")
    client.lpush("rankmill.control", "message")
    client.hset("rankmill:beat:rankmill.tick", "definition", "{}")
    return client


def is_refused(port: int, role: str, command: str) -> bool:
    """Return whether Redis refuses a role a command; other errors are not a refusal."""
    # By the older protocol a subscription is answered like any other command.
    with redis.Redis(port=port, username=role, password=role, protocol=2) as client:
        try:
            client.execute_command(*shlex.split(command))
        except redis.ResponseError as error:
            in_script = "user executing the script can't run this command" in str(error)
            return in_script or isinstance(error, redis.exceptions.NoPermissionError)
    return False


@pytest.mark.parametrize("row", ROWS, ids=[row["action"] for row in ROWS])
def test_each_role_has_the_rights_of_the_table(
    port: int, admin: redis.Redis, row: dict[str, Any]
) -> None:
    wrong = [
        f"{role}: {command}"
        for role in ROLES
        for command in row["commands"]
        if is_refused(port, role, command) != (role not in row["roles"])
    ]
    assert wrong == []


def test_a_script_that_loops_is_ended_by_a_worker(port: int, admin: redis.Redis) -> None:
    with client_of(port, "keda", "keda") as client:
        connection = client.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)

        def is_stuck() -> bool:
            try:
                return not client_of(port, "health", "any").ping()
            except redis.ResponseError as error:
                return "BUSY" in str(error)

        wait_for(is_stuck)
        assert client_of(port, "worker", "worker").execute_command("SCRIPT KILL") in ("OK", True)
        with pytest.raises(redis.ResponseError, match="killed"):
            connection.read_response()
    assert admin.lrange("rankmill.score", 0, -1) == ["message"]


def test_every_user_that_can_log_in_has_a_column() -> None:
    users = (CHECKOUT / "docker" / "redis" / "users.acl").read_text()
    named = {line.split()[1] for line in users.splitlines() if line.startswith("user ")}
    assert named - {"default"} == set(ROLES)
