"""The forms of a model's name: a hub id, a folder, `demo`, or `null` for benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

from rankmill.errors import ModelUnavailable

DEMO = "demo"
NULL = "null"  # scores nothing; for benchmarks, see worker/null_scorer.py


def is_null_model(model_id: str) -> bool:
    """Return whether the name is `null` or `null:RATE`."""
    return model_id.partition(":")[0] == NULL


def null_rate(model_id: str) -> float | None:
    """Return the pairs per second of `null:RATE`; None for plain `null`, which takes no time.

    Raises:
        ModelUnavailable: the rate is not a positive number.
    """
    name, separator, rate = model_id.partition(":")
    if not separator:
        return None
    try:
        pairs_per_s = float(rate)
    except ValueError:
        pairs_per_s = -1.0
    if not 0 < pairs_per_s < float("inf"):
        raise ModelUnavailable(f"{model_id}: give {name} or {name}:PAIRS_PER_SECOND")
    return pairs_per_s


def is_built_in_model(model_id: str) -> bool:
    """Return whether the name is `demo` or `null`, even where a folder has the same name."""
    return model_id == DEMO or is_null_model(model_id)


def is_model_folder(model_id: str, folder: Path = Path()) -> bool:
    """Return whether the name is a path, for `folder`; otherwise it is a hub id, `owner/name`."""
    try:
        return model_id.startswith(("/", ".", "~")) or (folder / model_id).exists()
    except OSError:  # too long for a path
        return False


def absolute_model(model_id: str, folder: Path = Path()) -> str:
    """Return the name of a model for any working folder; a relative path is below `folder`."""
    if is_built_in_model(model_id) or not is_model_folder(model_id, folder):
        return model_id
    return os.path.normpath(Path.cwd() / folder / os.path.expanduser(model_id))
