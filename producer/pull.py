"""Fetch a model into the store once: resumable, pinned to its commit, checked, nothing pickled."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from producer.conversion import check_converter, files_below, make_lacking
from rankmill.contract.base import check_revision
from rankmill.errors import InputError, ModelUnavailable
from rankmill.models import hub
from rankmill.models.checkpoint import TOKENIZERS, check_checkpoint, check_names
from rankmill.models.convertible import Lacking, lacking
from rankmill.models.folder_files import CODE, MODULES, TEMPLATES, module_folders
from rankmill.models.hub import HubCommit, HubFile
from rankmill.models.names import is_built_in_model, is_model_folder
from rankmill.models.own_code import name_own_code, other_repositories
from rankmill.models.permission import allowed_files, is_code_allowed
from rankmill.models.store import ModelStore, StoredCommit, StoredFile, model_store, sha256_of
from rankmill.models.weights import WEIGHTS


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


def pull(model_id: str, revision: str | None = None, *, pickled: bool = False) -> Pulled:
    """Fetch the missing files of a model and pin its commit; an interrupted pull is resumed.

    A tokenizer.json is made where there is none. Code of another repository is fetched, too, if
    the operator lets the model's code run.

    Args:
        model_id: the hub id.
        revision: a branch, a tag or a commit.
        pickled: fetch pickled weights where there are no others, and convert them.

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
    stored = _stored_before(models, model_id, commit)
    lacks = lacking({file.name for file in commit.files})
    if stored is None:
        _check_fetchable(model_id, commit, lacks, pickled=pickled)
    with models.changing(model_id):
        folder = models.folder(model_id, commit.commit)
        if stored is None:
            folder.mkdir(exist_ok=True)
            stored = _fetched(model_id, commit, folder, pickled=pickled)
        check_checkpoint(folder, may_run_code=is_code_allowed(model_id))
        models.record(model_id, revision, stored)
    return Pulled(folder, stored)


def _check_fetchable(model_id: str, commit: HubCommit, lacks: Lacking, *, pickled: bool) -> None:
    """Refuse a model before anything is written that could not be used."""
    names = {file.name for file in commit.files if "/" not in file.name}
    made = Lacking(weights=lacks.weights and pickled, tokenizer=lacks.tokenizer)
    if made:
        check_converter(model_id, made)
    names |= {WEIGHTS} if made.weights else set()
    names |= {TOKENIZERS[0]} if made.tokenizer else set()
    check_names(model_id, names, runs_code=is_code_allowed(model_id))


def _stored_before(models: ModelStore, model_id: str, commit: HubCommit) -> StoredCommit | None:
    """Return the record of an earlier pull of the commit, if all wanted files are still there."""
    model = models.read(model_id)
    stored = model.resolve(commit.commit) if model else None
    if stored is None:
        return None
    try:
        folder = models.find(model_id, commit.commit)
        wanted = _wanted(model_id, commit, folder)
        lacks_code = is_code_allowed(model_id) and other_repositories(folder)
        if lacks_code or lacking(files_below(folder), module_folders(folder)):
            return None
    except ModelUnavailable:
        return None
    has_all = {file.name for file in stored.files} >= {file.name for file in wanted}
    return stored if has_all else None


def _fetched(model_id: str, commit: HubCommit, folder: Path, *, pickled: bool) -> StoredCommit:
    """Fetch all files, with the code that they name, and make what they lack."""
    for file in commit.files:
        if file.name == MODULES:  # it names the subfolders that belong to the model
            _fetch(model_id, commit.commit, file, folder)
    wanted = _wanted(model_id, commit, folder)
    lacks = lacking({file.name for file in commit.files}, module_folders(folder))
    if not pickled:
        lacks = Lacking(weights=False, tokenizer=lacks.tokenizer)
    if lacks.weights:
        wanted += _pickled(commit, folder)
    files = {file.name: _fetch(model_id, commit.commit, file, folder) for file in wanted}
    code: dict[str, str] = {}
    may_run_code = is_code_allowed(model_id)
    if may_run_code:
        code, changed = _fetch_code(folder, set(files))
        files |= {name: _stored(folder, name) for name in changed}
    if lacks:
        made = make_lacking(folder, lacks, folder, may_run_code=may_run_code).files
        files |= {name: _stored(folder, name) for name in made}
        for name in [name for name in files if name.endswith(".bin")]:
            (folder / name).unlink()
            del files[name]
    return StoredCommit(
        commit=commit.commit,
        files=tuple(files.values()),
        code=code,
        pulled_at=datetime.now(UTC).replace(microsecond=0),
        license=commit.license,
    )


def _fetch_code(folder: Path, taken: set[str]) -> tuple[dict[str, str], list[str]]:
    """Fetch the code that the model's settings name in other repositories, as it is now.

    Args:
        folder: the model's folder.
        taken: the names of the model's own files.

    Returns:
        The commit of each repository, and the names of the files written.

    Raises:
        ModelUnavailable: a repository is out of reach or has no code, or two files have one name.
    """
    commits: dict[str, str] = {}
    written: list[str] = []
    for repository in other_repositories(folder):
        commit = hub.look_up(repository, None)
        commits[repository] = commit.commit
        files = [file for file in commit.files if fnmatch(file.name, CODE) and "/" not in file.name]
        if not files:
            raise ModelUnavailable(
                f"{folder}: auto_map names code of {repository}, which has no {CODE}"
            )
        for file in files:
            if file.name in taken and _whole_sha256(folder / file.name, file) is None:
                raise ModelUnavailable(
                    f"{folder}: {file.name} of {repository} has the name of another file of the "
                    "model's code; put both into a folder of your own"
                )
            _fetch(repository, commit.commit, file, folder)
            written.append(file.name)
            taken = taken | {file.name}
    return commits, written + (name_own_code(folder) if commits else [])


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


def _pickled(commit: HubCommit, folder: Path) -> list[HubFile]:
    """Return the pickled weights of a model, of its shards and of its modules."""
    folders = {".", *module_folders(folder)}
    return [
        file
        for file in commit.files
        for path in [PurePosixPath(file.name)]
        if str(path.parent) in folders and fnmatch(path.name, "pytorch_model*.bin")
    ]


def _fetch(model_id: str, commit: str, file: HubFile, folder: Path) -> StoredFile:
    target = folder / file.name
    sha256 = _whole_sha256(target, file) if target.exists() else None
    if sha256 is None:  # else it was fetched by a pull that stopped later
        target.unlink(missing_ok=True)
        target.parent.mkdir(exist_ok=True, parents=True)
        part = folder / f"{file.name}.part"
        if part.exists() and part.stat().st_size > file.n_bytes:
            part.unlink()
        hub.download(model_id, commit, file, part)
        sha256 = _whole_sha256(part, file)
        if sha256 is None:
            part.unlink()
            raise ModelUnavailable(
                f"{model_id}: {file.name} arrived damaged and was removed; run the same command "
                "again"
            )
        os.replace(part, target)
    return StoredFile(name=file.name, n_bytes=file.n_bytes, sha256=sha256)


def _whole_sha256(path: Path, file: HubFile) -> str | None:
    """Return the digest of a fetched file, or None if it is not the hub's file."""
    sha256 = sha256_of(path)
    if file.sha256:
        return sha256 if file.sha256 == sha256 else None
    blob = path.read_bytes()  # a small file, which the hub knows only by git's digest
    git = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False)
    return sha256 if file.git_sha1 == git.hexdigest() else None


def _stored(folder: Path, name: str) -> StoredFile:
    """Return the record of a file that was made or changed here."""
    path = folder / name
    return StoredFile(name=name, n_bytes=path.stat().st_size, sha256=sha256_of(path))
