"""Fixtures: random cross-encoders of each architecture with small tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rankmill.settings import CHECKOUT
from tests.support.models.checkpoints import BUILDERS
from tests.support.models.zoo import FAMILIES


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a model folder for each name of `BUILDERS` and `FAMILIES`, and the demo model."""
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {}
    for name, build in (BUILDERS | FAMILIES).items():
        torch.manual_seed(0)
        folders[name] = build(root / name)
    folders["demo"] = CHECKOUT / "models" / "demo-reranker"
    return folders
