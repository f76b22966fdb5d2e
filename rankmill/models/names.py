"""A model's name to a local folder that is safe to load: safetensors, nothing pickled.

Names are hub ids, folders, `demo`, and `null` for benchmarks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rankmill.contract.base import check_revision
from rankmill.errors import ModelUnavailable
from rankmill.models import hub
from rankmill.models.checkpoint import CODE, SAFE_FILES, check_checkpoint
from rankmill.models.layers import check_layers
from rankmill.models.model_folder import check_causal, check_max_length
from rankmill.models.store import model_store
from rankmill.settings import CHECKOUT, settings
from rankmill.storage.allowed import check_path, is_under

DEMO = "demo"
NULL = "null"  # scores nothing; for benchmarks, see worker/null_scorer.py


def locate(model_id: str, revision: str | None = None) -> Path:
    """The local folder of a model; a hub id's is in the model store, else in the hub's cache.

    Nothing is fetched where a store is set: what it lacks was not pulled.

    Raises:
        ModelUnavailable: saying what is wrong and what to do.
        NotAllowed: as `check_allowed`.
    """
    check_allowed(model_id)
    if revision is not None:
        check_revision(revision)
    if model_id == DEMO:
        folder = CHECKOUT / "models" / "demo-reranker"
    elif is_local(model_id):
        folder = Path(model_id)
    elif (store := model_store()) is not None:
        folder = store.find(model_id, revision)
    else:
        folder = hub.cached(model_id, revision, wanted_files(model_id))
    check_checkpoint(folder, may_run_code=may_run_code(model_id))
    if not may_run_code(model_id):
        check_causal(folder)
        check_layers(folder)
    return folder


def check_here(model_id: str, revision: str | None, max_length: int | None) -> None:
    """Refuse a model, or a length for it, by the files that are on this machine already.

    Raises:
        ModelUnavailable: as `locate`.
        InputError: `max_length` is more than the model takes.
    """
    if is_null(model_id):
        null_rate(model_id)
        return
    store = None if is_built_in(model_id) or is_local(model_id) else model_store()
    stored = store.read(model_id) if store is not None else None
    is_stored = stored is not None and stored.resolve(revision) is not None
    if is_stored or model_id == DEMO or is_local(model_id):
        check_max_length(max_length, model_id, locate(model_id, revision))


def check_allowed(model_id: str) -> None:
    """Refuse a model that the operator does not let jobs name.

    Raises:
        ModelUnavailable: RANKMILL_ALLOWED_MODELS does not have it.
        NotAllowed: without that setting, a folder outside of RANKMILL_ALLOWED_PREFIXES.
    """
    allowed = settings().allowed_models
    if allowed is not None:
        if not _is_listed(model_id, allowed):
            raise ModelUnavailable(
                f"model {model_id[:200]} is not among those that RANKMILL_ALLOWED_MODELS allows: "
                f"{', '.join(allowed)}"
            )
    elif not is_built_in(model_id) and is_local(model_id):
        folder = Path(model_id)
        check_path(folder, model_id)
        for file in folder.rglob("*"):  # which may be links
            check_path(file, str(file))


def may_run_code(model_id: str) -> bool:
    """Whether the operator lets Python code that comes with the model run."""
    return _is_listed(model_id, settings().remote_code_models or ())


def _is_listed(model_id: str, names: Sequence[str]) -> bool:
    """By its id, by `owner/*`, or by a folder that it is or lies in."""
    if is_built_in(model_id):
        return model_id.partition(":")[0] in names
    if is_local(model_id):
        folder = os.path.realpath(Path(model_id))
        folders = [os.path.realpath(name) for name in names if name.startswith("/")]
        return any(is_under(folder, each) for each in folders)
    owner, _, name = model_id.partition("/")
    return model_id in names or (bool(name) and "/" not in name and f"{owner}/*" in names)


def null_rate(model_id: str) -> float | None:
    """Pairs a second of `null:RATE`; None for plain `null`, which takes no time.

    Raises:
        ModelUnavailable: the rate is no positive number.
    """
    name, separator, rate = model_id.partition(":")
    if not separator:
        return None
    try:
        pairs_per_s = float(rate)
    except ValueError:
        pairs_per_s = -1.0
    if not 0 < pairs_per_s < float("inf"):
        raise ModelUnavailable(f"{model_id}: say {name} or {name}:PAIRS_PER_SECOND")
    return pairs_per_s


def is_null(model_id: str) -> bool:
    return model_id.partition(":")[0] == NULL


def is_built_in(model_id: str) -> bool:
    """Whether a name is ours whatever lies in the folder one is in."""
    return model_id == DEMO or is_null(model_id)


def is_local(model_id: str) -> bool:
    """Whether a model is named by its folder; else it is a hub id, `owner/name`."""
    try:
        return model_id.startswith(("/", ".", "~")) or Path(model_id).exists()
    except OSError:  # too long for a path
        return False


def wanted_files(model_id: str) -> tuple[str, ...]:
    """Return the patterns of a model's files; code only where the operator lets it run."""
    return (*SAFE_FILES, CODE) if may_run_code(model_id) else SAFE_FILES
