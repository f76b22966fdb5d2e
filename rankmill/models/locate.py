"""Find the local folder of a model and check that it is safe and complete enough to load."""

from __future__ import annotations

from pathlib import Path

from rankmill.contract.base import check_revision
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError
from rankmill.models import hub
from rankmill.models.checkpoint import check_checkpoint
from rankmill.models.names import (
    DEMO,
    is_built_in_model,
    is_model_folder,
    is_null_model,
    null_rate,
)
from rankmill.models.permission import allowed_files, check_model_allowed, is_code_allowed
from rankmill.models.recipes import published_recipe
from rankmill.models.scoring_settings import check_causal, check_lengths
from rankmill.models.store import model_store
from rankmill.models.weights import check_layers
from rankmill.settings import CHECKOUT


def locate_model(model_id: str, revision: str | None = None, *, has_template: bool = False) -> Path:
    """Return the checked local folder of a model: in the model store, else in the hub's cache.

    If a store is configured, nothing is fetched: a model that it lacks was not pulled.

    Args:
        model_id: the model's name.
        revision: a commit, a branch or a tag.
        has_template: whether the job brings a template, which not all models do.

    Raises:
        ModelUnavailable: the model is absent, unsafe or damaged; the message says what to do.
        InputError: the revision is not one, or is of a model that has none.
        NotAllowed: as `check_model_allowed`.
    """
    check_model_allowed(model_id)
    _check_revision(model_id, revision)
    if model_id == DEMO:
        in_wheel = Path(__file__).with_name("demo-reranker")
        folder = in_wheel if in_wheel.is_dir() else CHECKOUT / "models" / "demo-reranker"
    elif is_model_folder(model_id):
        folder = Path(model_id)
    elif (store := model_store()) is not None:
        folder = store.find(model_id, revision)
    else:
        folder = hub.cached(model_id, revision, allowed_files(model_id))
    check_checkpoint(folder, may_run_code=is_code_allowed(model_id))
    if not is_code_allowed(model_id):
        if not has_template and not published_recipe(folder, model_id).pieces:
            check_causal(folder)
        check_layers(folder)
    return folder


def is_in_hub_cache(model_id: str) -> bool:
    """Return whether the model's files are, or will be, in the cache of the hub's client."""
    is_elsewhere = is_built_in_model(model_id) or is_model_folder(model_id)
    return not is_elsewhere and model_store() is None


def check_model_if_here(options: JobOptions) -> None:
    """Check a job's model and its lengths if its files are on this machine; fetch nothing.

    Raises:
        ModelUnavailable: as `locate_model`.
        InputError: a length is more than the model takes.
    """
    model_id, revision = options.model_id, options.model_revision
    if is_null_model(model_id):
        null_rate(model_id)
        _check_revision(model_id, revision)
        check_lengths(options, None)
        return
    store = None if is_built_in_model(model_id) or is_model_folder(model_id) else model_store()
    stored = store.read(model_id) if store is not None else None
    is_stored = stored is not None and stored.resolve(revision) is not None
    if is_stored or model_id == DEMO or is_model_folder(model_id):
        folder = locate_model(model_id, revision, has_template=options.has_template)
        check_lengths(options, folder)


def _check_revision(model_id: str, revision: str | None) -> None:
    """Refuse a revision that is not one, and one that would have no effect.

    Raises:
        InputError: naming both.
    """
    if revision is None:
        return
    check_revision(revision)
    if is_built_in_model(model_id) or is_model_folder(model_id):
        raise InputError(
            f"--revision {revision}: {model_id} is not a model of the hub, so that it has no "
            "revisions; leave it out"
        )
