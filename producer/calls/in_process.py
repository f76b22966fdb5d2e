"""Score in the calling process: the worker's side, which is found by its name.

A producer knows the worker by names only, as it sends work by a task's name. So nothing of torch is
imported before a call needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from rankmill.contract.results import Manifest
from rankmill.errors import InputError
from rankmill.output.output import Job

_WORKER = "worker.in_process"
_NEEDS = ("torch", "transformers", "safetensors", "jinja2")

Progress = Callable[[str, int], None]


class Scoring(Protocol):
    """The functions of `worker.in_process`."""

    def score(self, job: Job, progress: Progress) -> Manifest:
        """Score all shards of a planned job, and return the sum of their reports."""

    def release(self) -> None:
        """Free the model that is held."""


def scoring(call: str) -> Scoring:
    """Return the worker's side.

    Raises:
        InputError: a package that it needs is not installed, or another module hides the worker's.
    """
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{call} scores in this process and needs {missing[0]}: pip install 'rankmill[worker]'"
        )
    try:
        return cast(Scoring, import_module(_WORKER))
    except ModuleNotFoundError as error:
        if error.name != _WORKER:
            raise
        hiding = getattr(sys.modules.get("worker"), "__file__", "another module")
        raise InputError(
            f"{hiding} hides Rankmill's package `worker`; rename it, or start Python elsewhere"
        ) from None


def is_used() -> bool:
    """Return whether this process has scored."""
    return _WORKER in sys.modules
