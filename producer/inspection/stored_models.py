"""List what the model store holds, and how each commit of a model would score."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec

from pydantic import BaseModel, ConfigDict

from producer.cluster.local import devices
from producer.estimates.engine import ask
from producer.pull import store
from rankmill.contract.base import parse
from rankmill.contract.inspection import DescribeRequest, Description, Descriptions
from rankmill.contract.job import JobSpec
from rankmill.models.store import ModelStore, StoredCommit, StoredModel

_MODULE = "worker.inspection.describe"
_UNUSED = "unused"  # nothing is read or written


class ListedModel(BaseModel):
    """A commit of a pulled model, as `models list --json` prints it.

    Attributes:
        revisions: the branches and tags that were pulled and are at this commit.
        is_pinned: whether a job without --revision uses it.
        pulled_at: None for a pull of an earlier release; so is `license`.
        path: None if it is refused, or unknown since torch is not installed.
        max_length: tokens of a pair; None like `path`.
        recipe: None where the folder says how its pairs score.
        refused: why no job can use it.
    """

    model_config = ConfigDict(frozen=True)

    model_id: str
    commit: str
    revisions: tuple[str, ...]
    is_pinned: bool
    n_bytes: int
    folder: str
    license: str | None
    pulled_at: datetime | None
    path: str | None
    path_reason: str
    max_length: int | None
    recipe: str | None
    refused: str | None


def stored_models() -> list[ListedModel]:
    """Return every commit in the store, sorted by name.

    Raises:
        InputError: no store is set.
        ModelUnavailable: a record of the store cannot be read.
    """
    kept = store()
    held = [(model, commit) for model in kept.models() for commit in model.commits]
    found = _described(held)
    return [_listed(kept, *each, how) for each, how in zip(held, found, strict=True)]


def _described(held: list[tuple[StoredModel, StoredCommit]]) -> tuple[Description, ...]:
    if not held:
        return ()
    if find_spec("torch") is None:
        return (Description(path_reason="unknown: torch is not installed"),) * len(held)
    specs = tuple(
        JobSpec(
            input_uri=_UNUSED,
            output_uri=_UNUSED,
            model_id=model.model_id,
            model_revision=commit.commit,
        )
        for model, commit in held
    )
    device, *_ = devices("cpu")
    answer = ask(_MODULE, DescribeRequest(specs=specs).to_json(), device)
    return parse(Descriptions, answer, _MODULE).found


def _listed(
    kept: ModelStore, model: StoredModel, commit: StoredCommit, found: Description
) -> ListedModel:
    return ListedModel(
        model_id=model.model_id,
        commit=commit.commit,
        revisions=tuple(name for name, at in model.revisions.items() if at == commit.commit),
        is_pinned=commit.commit == model.pinned,
        n_bytes=commit.n_bytes,
        folder=str(kept.folder(model.model_id, commit.commit)),
        license=commit.license,
        pulled_at=commit.pulled_at,
        path=found.path,
        path_reason=found.path_reason,
        max_length=found.max_length,
        recipe=found.recipe,
        refused=found.refused,
    )
