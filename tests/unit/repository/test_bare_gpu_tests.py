"""The GPU's tests start where there is torch and next to nothing else, as on a rented machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from rankmill.settings import CHECKOUT

# The engine, and the one module of rankmill that it shares: rankmill/models/input_length.py.
CHECKED_OUT = ("worker", "rankmill", "bench")
THERE = ("torch", "transformers", "sentence-transformers", "numpy", "pytest")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_their_needs(names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    waiting = [normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        plain = [need for need in needs if "extra ==" not in need]
        waiting += [normal(re.split(r"[^A-Za-z0-9._-]", need.strip())[0]) for need in plain]
    return found


# All that a call of the benchmark of a card imports.
BENCH = ", ".join(
    f"bench.gpu.{name}" for name in ("__main__", "checkpoints", "memory", "kernels", "processes")
)


@pytest.mark.parametrize("what", ["tests", "bench"])
def test_the_gpu_tests_and_benchmark_start_with_five_packages(tmp_path: Path, what: str) -> None:
    there = with_their_needs(THERE)
    hidden = [
        module
        for module, of in packages_distributions().items()
        if module not in CHECKED_OUT and not there & {normal(name) for name in of}
    ]
    assert {"redis", "celery", "pyarrow", "hypothesis", "pytest_timeout"} <= {*hidden}
    hidden += ["producer", "tasks", "pydantic"]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({hidden!r}))\n"
    )
    arguments = ["-m", "pytest", "tests/gpu", "-p", "no:cacheprovider"]
    if what == "bench":
        arguments = ["-c", f"import {BENCH}; print('1 skipped')"]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ skipped", done.stdout), done.stdout
