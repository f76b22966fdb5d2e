"""The connections that all of a process shares."""

from __future__ import annotations

from typing import Any

import pytest

from rankmill.broker import app
from rankmill.ledger.client import shared_client
from rankmill.settings import settings
from tests.conftest import forget_settings


def test_a_channel_that_closes_leaves_shared_connections_open(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = shared_client(settings()).connection_pool
    with app().connection_for_write() as connection:
        channel = connection.default_channel
        assert channel.pool is shared
        in_use = shared.get_connection()  # of another thread
        number = number_of(in_use)
        monkeypatch.setenv("RANKMILL_CLAIM_S", "5")
        forget_settings()
        assert shared_client(settings()).connection_pool is not shared
        channel.close()
    assert number_of(in_use) == number, "it was closed, and has connected again"
    shared.release(in_use)


def number_of(connection: Any) -> int:
    connection.send_command("CLIENT", "ID")
    return int(connection.read_response())
