"""A process that scores imports no more of torch and transformers than it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rankmill.settings import CHECKOUT

pytestmark = pytest.mark.slow

SCORE = """
import sys, torch
from pathlib import Path
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow

scorer = Scorer.load(Path(sys.argv[1]), precision="fp32")
list(scorer.score([PairWindow(["a query"], ["a text"])]))
large = {"torch._dynamo", "torch.distributed.tensor", "transformers.modeling_utils"}
print(sorted(large & set(sys.modules)))
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


# What Celery calls in a worker's child before its first task, for a role's queues.
BEGIN = """
import gc
import sys
from rankmill.broker import queues_of
from tasks.celery import app
from worker.signals import _begin_child

app.set_current()
app.amqp.queues.select(queues_of(sys.argv[1]))
_begin_child()
assert gc.isenabled()
print(sorted({"torch", "transformers.models.auto", "worker.delivery"} & set(sys.modules)))
"""

DEMO = CHECKOUT / "models" / "demo-reranker"


def lines_of(code: str, *arguments: str) -> list[str]:
    """Return what a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    return done.stdout.splitlines()


def test_scoring_a_bert_imports_none_of_transformers_models() -> None:
    assert lines_of(SCORE, str(DEMO)) == ["[]", "True"]


def test_scoring_with_transformers_models_imports_no_compiler(tmp_path: Path) -> None:
    folder = shutil.copytree(DEMO, tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"] = tensors["classifier.bias"].float()  # of several dtypes
    save_file(tensors, path, metadata={"format": "pt"})
    assert lines_of(SCORE, str(folder)) == ["['transformers.modeling_utils']", "True"]


def test_code_that_compiles_gets_the_compiler() -> None:
    assert lines_of(COMPILE) == ["True 2.0", "True"]


@pytest.mark.parametrize(
    ("role", "imported"),
    [("score", "['torch', 'transformers.models.auto', 'worker.delivery']"), ("control", "[]")],
)
def test_a_child_that_scores_imports_the_engine_before_its_first_task(
    role: str, imported: str
) -> None:
    assert lines_of(BEGIN, role) == [imported]
