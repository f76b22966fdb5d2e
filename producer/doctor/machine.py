"""This machine: its Python and packages, its devices, its cores."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from producer.doctor.finding import Finding, ok, problem, warning
from producer.local import devices
from rankmill.settings import Settings

_PACKAGES = ("celery", "kombu", "redis", "pyarrow", "boto3", "duckdb", "torch", "transformers")
_SCORING = {"torch", "transformers"}


def look_at_machine(settings: Settings) -> Iterator[Finding]:
    there = {name: _version(name) for name in _PACKAGES}
    there = {name: number for name, number in there.items() if number}
    told = ", ".join(f"{name} {number}" for name, number in there.items())
    yield ok("versions", f"python {platform.python_version()}, {told}")
    if not there.keys() >= _SCORING:
        yield ok("scoring", "torch or transformers is not installed: submits, does not score")
    if "duckdb" not in there:
        yield warning(
            "preparing",
            "DuckDB is not installed: only clustered pairs in Parquet can be read",
            "pip install 'rankmill[prepare]'",
        )
    found = devices(settings.device)
    names = ", ".join(each.name for each in found)
    n_cores = _n_cores()
    yield ok("devices", f"{names}; {n_cores} cores")
    if settings.threads * len(found) > n_cores:
        yield problem(
            "threads",
            f"{len(found)} x RANKMILL_THREADS={settings.threads} on {n_cores} cores: slower, "
            "up to a factor of four",
            "unset RANKMILL_THREADS",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
