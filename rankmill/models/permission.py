"""The models that the operator lets jobs name, and those whose Python code may run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rankmill.errors import ModelNotAllowed, ModelUnavailable
from rankmill.models.folder_files import CODE, SAFE_FILES
from rankmill.models.names import is_built_in_model, is_model_folder
from rankmill.settings import settings
from rankmill.storage.allowed import check_path, is_under

# A model has some dozens; the root of a disk has millions.
_MAX_FILES = 10_000


def check_model_allowed(model_id: str) -> None:
    """Refuse a model that the operator does not let jobs name.

    Raises:
        ModelNotAllowed: RANKMILL_ALLOWED_MODELS is set and does not list it.
        NotAllowed: that setting is absent, and the folder is outside RANKMILL_ALLOWED_PREFIXES.
        ModelUnavailable: too many files lie below the folder.
    """
    allowed = settings().allowed_models
    if allowed is not None:
        if not _is_listed(model_id, allowed):
            raise ModelNotAllowed(
                f"model {model_id[:200]} is not among those that RANKMILL_ALLOWED_MODELS allows: "
                f"{', '.join(allowed)}"
            )
    elif not is_built_in_model(model_id) and is_model_folder(model_id):
        folder = Path(model_id)
        check_path(folder, model_id)
        for n_files, file in enumerate(_all_below(folder)):  # which may be links
            if n_files > _MAX_FILES:
                raise ModelUnavailable(
                    f"{model_id}: is not a model folder: more than {_MAX_FILES} files lie below it"
                )
            check_path(file, str(file))


def _all_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def is_code_allowed(model_id: str) -> bool:
    """Return whether RANKMILL_REMOTE_CODE_MODELS lets the model's own Python code run."""
    return _is_listed(model_id, settings().remote_code_models or ())


def allowed_files(model_id: str) -> tuple[str, ...]:
    """Return the patterns of a model's files; code only where the operator lets it run."""
    return (*SAFE_FILES, CODE) if is_code_allowed(model_id) else SAFE_FILES


def _is_listed(model_id: str, names: Sequence[str]) -> bool:
    """Match the id itself, `owner/*`, or a folder that the model is or lies in."""
    if is_built_in_model(model_id):
        return model_id.partition(":")[0] in names
    if is_model_folder(model_id):
        folder = os.path.realpath(Path(model_id))
        folders = [os.path.realpath(name) for name in names if name.startswith("/")]
        return any(is_under(folder, allowed) for allowed in folders)
    owner, _, name = model_id.partition("/")
    return model_id in names or (bool(name) and "/" not in name and f"{owner}/*" in names)
