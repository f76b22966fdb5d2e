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
    folder: Path
    stored: StoredCommit


def store() -> ModelStore:
    """The store of the settings.

    Raises:
        InputError: they name none.
    """
    kept = model_store()
    if kept is None:
        raise InputError("RANKMILL_MODELS is not set; name the folder that is to hold the models")
    return kept


def pull(model_id: str, revision: str | None = None) -> Pulled:
    """Fetch what is missing of a model and pin it; the same again goes on where it stopped.

    Raises:
        ModelUnavailable: the hub does not have it, it has only pickled weights, or it did not
            arrive whole.
        InputError: the store cannot be written, or no store is set.
    """
    if is_built_in_model(model_id) or is_model_folder(model_id):
        raise InputError(f"{model_id}: is no hub id; there is nothing to fetch")
    if revision is not None:
        check_revision(revision)
    kept = store()
    found = hub.look_up(model_id, revision)
    check_names(model_id, {file.name for file in found.files if "/" not in file.name})
    with kept.changing(model_id):
        folder = kept.folder(model_id, found.commit)
        stored = _stored_before(kept, model_id, found) or _fetch_all(model_id, found, folder)
        check_checkpoint(folder, may_run_code=is_code_allowed(model_id))
        kept.record(model_id, revision, stored)
    return Pulled(folder, stored)


def _stored_before(kept: ModelStore, model_id: str, found: HubCommit) -> StoredCommit | None:
    """Return what an earlier pull of the commit has noted, if it is whole and still there."""
    model = kept.read(model_id)
    stored = model.resolve(found.commit) if model else None
    if stored is None:
        return None
    try:
        folder = kept.find(model_id, found.commit)
        wanted = _wanted(model_id, found, folder)
    except ModelUnavailable:
        return None
    return (
        stored if {file.name for file in stored.files} >= {file.name for file in wanted} else None
    )


def _fetch_all(model_id: str, found: HubCommit, folder: Path) -> StoredCommit:
    folder.mkdir(exist_ok=True)
    for file in found.files:
        if file.name == MODULES:  # it says which subfolders belong to the model
            _fetch(model_id, found.commit, file, folder)
    wanted = _wanted(model_id, found, folder)
    files = tuple(_fetch(model_id, found.commit, file, folder) for file in wanted)
    return StoredCommit(commit=found.commit, files=files)


def _wanted(model_id: str, found: HubCommit, folder: Path) -> list[HubFile]:
    """The files of the top folder and of its modules, by kind; `folder` has modules.json."""
    patterns = allowed_files(model_id)
    folders = {".", TEMPLATES, *module_folders(folder)}
    return [
        file
        for file in found.files
        for path in [PurePosixPath(file.name)]
        if str(path.parent) in folders and any(fnmatch(path.name, each) for each in patterns)
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
    if (file.sha256 or file.git_sha1) != (sha256 if file.sha256 else _git_sha1(part)):
        part.unlink()
        raise ModelUnavailable(
            f"{model_id}: {file.name} arrived damaged and was removed; run the same command again"
        )
    os.replace(part, target)
    return StoredFile(name=file.name, n_bytes=file.n_bytes, sha256=sha256)


def _git_sha1(path: Path) -> str:
    """The digest that git names a file by; only small files have no other."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
