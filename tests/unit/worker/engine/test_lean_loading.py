"""A process that scores imports neither torch's compiler nor its tensors of several machines."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rankmill.settings import CHECKOUT

pytestmark = pytest.mark.slow

SCORE = """
import sys, torch
from pathlib import Path
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow

scorer = Scorer.load(Path("models/demo-reranker"), precision="fp32")
list(scorer.score([PairWindow(["a query"], ["a text"])]))
print(sorted({"torch._dynamo", "torch.distributed.tensor"} & set(sys.modules)))
print(torch.distributed.is_available())
"""
# What a model's own code may do while it is loaded.
COMPILE = """
import torch
from worker.engine.lean_loading import lean_loading

with lean_loading():
    marked = torch.compiler.disable(len)
    doubled = torch.compile(lambda x: 2 * x, backend="eager")
    print(marked is len, doubled(torch.ones(1)).item())
print(torch._dynamo.__file__.endswith("_dynamo/__init__.py"))
"""


def lines_of(code: str) -> list[str]:
    """Return what a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=CHECKOUT
    )
    return done.stdout.splitlines()


def test_scoring_imports_no_compiler() -> None:
    assert lines_of(SCORE) == ["[]", "True"]


def test_code_that_compiles_gets_the_compiler() -> None:
    assert lines_of(COMPILE) == ["True 2.0", "True"]
