"""One stack for all tests here; `make test-compose` runs them, they need a Docker Engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, check_docker

_BUILD_S = 1800


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Built, up and healthy; taken down with its volumes when the tests end."""
    check_docker()
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.write_env(TORCH_INDEX=_torch_index())
    try:
        stack.compose("build", timeout_s=_BUILD_S)
        stack.compose("up", "--wait", "--wait-timeout", "240", timeout_s=300)
        yield stack
    except BaseException:
        print(stack.try_compose("ps", "--all").stdout)
        print(stack.try_compose("logs", "--tail", "100").stdout)
        raise
    finally:
        stack.try_compose("down", "--volumes", "--timeout", "20", timeout_s=300)


def _torch_index() -> str:
    """Return TORCH_INDEX; it is empty if the configured package index has torch for the CPU."""
    import os

    return os.environ.get("TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
