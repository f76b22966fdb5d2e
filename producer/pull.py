"""Fetch a model into the store once: resumable, pinned to its commit, checked, nothing pickled."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from rankmill.contract.base import check_revision
from rankmill.errors import InputError, ModelUnavailable
from rankmill.models import hub
from rankmill.models.checkpoint import check_checkpoint, check_names
from rankmill.models.folder_files import MODULES, TEMPLATES, module_folders
from rankmill.models.hub import HubCommit, HubFile
from rankmill.models.names import is_built_in_model, is_model_folder
from rankmill.models.permission import allowed_files, is_code_allowed
from rankmill.models.store import ModelStore, StoredCommit, StoredFile, model_store, sha256_of


@dataclass(frozen=True)
class Pulled:
    """A model in the store: the folder of its pinned commit, and the files there."""

    folder: Path
    stored: StoredCommit


def store() -> ModelStore:
    """Return the model store at RANKMILL_MODELS.

    Raises:
        InputError: that is not set.
    """
    configured = model_store()
    if configured is None:
        raise InputError("RANKMILL_MODELS is not set; set it to the folder for the models")
    return configured


def pull(model_id: str, revision: str | None = None) -> Pulled:
    """Fetch the missing files of a model and pin its commit; an interrupted pull is resumed.

    Raises:
        ModelUnavailable: the hub does not have it, it has only pickled weights, or it did not
            arrive whole.
        InputError: the store cannot be written, or no store is set.
    """
    if is_built_in_model(model_id) or is_model_folder(model_id):
        raise InputError(f"{model_id} is not a hub id (owner/name), so there is nothing to fetch")
    if revision is not None:
        check_revision(revision)
    models = store()
    commit = hub.look_up(model_id, revision)
    check_names(model_id, {file.name for file in commit.files if "/" not in file.name})
    with models.changing(model_id):
        folder = models.folder(model_id, commit.commit)
        stored = _stored_before(models, model_id, commit)
        if stored is None:
            folder.mkdir(exist_ok=True)
            for file in commit.files:
                if file.name == MODULES:  # it names the subfolders that belong to the model
                    _fetch(model_id, commit.commit, file, folder)
            files = _wanted(model_id, commit, folder)
            stored = StoredCommit(
                commit=commit.commit,
                files=tuple(_fetch(model_id, commit.commit, file, folder) for file in files),
            )
        check_checkpoint(folder, may_run_code=is_code_allowed(model_id))
        models.record(model_id, revision, stored)
    return Pulled(folder, stored)


def _stored_before(models: ModelStore, model_id: str, commit: HubCommit) -> StoredCommit | None:
    """Return the record of an earlier pull of the commit, if all wanted files are still there."""
    model = models.read(model_id)
    stored = model.resolve(commit.commit) if model else None
    if stored is None:
        return None
    try:
        wanted = _wanted(model_id, commit, models.find(model_id, commit.commit))
    except ModelUnavailable:
        return None
    has_all = {file.name for file in stored.files} >= {file.name for file in wanted}
    return stored if has_all else None


def _wanted(model_id: str, commit: HubCommit, folder: Path) -> list[HubFile]:
    """Return the allowed files of the top folder and of the modules that `folder` names."""
    patterns = allowed_files(model_id)
    folders = {".", TEMPLATES, *module_folders(folder)}
    return [
        file
        for file in commit.files
        for path in [PurePosixPath(file.name)]
        if str(path.parent) in folders and any(fnmatch(path.name, pattern) for pattern in patterns)
    ]


def _fetch(model_id: str, commit: str, file: HubFile, folder: Path) -> StoredFile:
    target = folder / file.name
    target.parent.mkdir(exist_ok=True, parents=True)
    part = folder / f"{file.name}.part"
    if target.exists() and not part.exists():
        os.replace(target, part)  # fetched in full by a pull that stopped later, or damaged since
    if part.exists() and part.stat().st_size > file.n_bytes:
        part.unlink()
    hub.download(model_id, commit, file, part)
    sha256 = sha256_of(part)
    if file.sha256:
        is_whole = file.sha256 == sha256
    else:  # a small file, which the hub knows only by git's digest
        blob = part.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False)
        is_whole = file.git_sha1 == git.hexdigest()
    if not is_whole:
        part.unlink()
        raise ModelUnavailable(
            f"{model_id}: {file.name} arrived damaged and was removed; run the same command again"
        )
    os.replace(part, target)
    return StoredFile(name=file.name, n_bytes=file.n_bytes, sha256=sha256)
