"""This machine: its Python and packages, its devices, its cores."""

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
    if there.keys() >= _SCORING:
        yield from _devices(settings)


def _devices(settings: Settings) -> Iterator[Finding]:
    n_cores = n_usable_cores()
    try:
        found = devices(settings.device)
    except InputError as error:
        mend = "mend what was seen, or set RANKMILL_DEVICE to auto or cpu"
        yield problem("devices", str(error), mend)
        return
    message = f"{', '.join(each.name for each in found)}; {n_cores} cores"
    surprise = next((each.surprise for each in found if each.surprise), None)
    if surprise is not None:
        mend = "mend that; RANKMILL_DEVICE=cuda makes it an error, =cpu says that it is meant"
        yield warning("devices", f"{message}: {surprise}", mend)
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
