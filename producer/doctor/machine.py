"""Check this machine: its Python and packages, its devices, its cores."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from producer.cluster.local import devices
from producer.doctor.finding import Finding, ok, problem, warning
from rankmill.devices.cores import n_usable_cores
from rankmill.errors import InputError
from rankmill.settings import Settings

_PACKAGES = ("celery", "kombu", "redis", "pyarrow", "boto3", "duckdb", "torch", "transformers")
_SCORING = {"torch", "transformers"}


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Check packages, devices and threads."""
    installed = {name: number for name in _PACKAGES if (number := _version(name))}
    versions = ", ".join(f"{name} {number}" for name, number in installed.items())
    yield ok("versions", f"python {platform.python_version()}, {versions}")
    if not installed.keys() >= _SCORING:
        yield ok("scoring", "torch or transformers is not installed: submits, does not score")
    if "duckdb" not in installed:
        yield warning(
            "preparing",
            "DuckDB is not installed: only clustered pairs in Parquet can be read",
            "pip install 'rankmill[prepare]'",
        )
    if installed.keys() >= _SCORING:
        yield from _devices(settings)


def _devices(settings: Settings) -> Iterator[Finding]:
    n_cores = n_usable_cores()
    try:
        found = devices(settings.device)
    except InputError as error:
        fix = "repair the device, or set RANKMILL_DEVICE to auto or cpu"
        yield problem("devices", str(error), fix)
        return
    named = [f"{each.name} ({each.about})" if each.about else each.name for each in found]
    message = f"{', '.join(named)}; {n_cores} cores"
    surprise = next((each.surprise for each in found if each.surprise), None)
    if surprise is not None:
        fix = "repair the device; RANKMILL_DEVICE=cuda makes this an error, =cpu accepts it"
        yield warning("devices", f"{message}: {surprise}", fix)
    else:
        yield ok("devices", message)
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
