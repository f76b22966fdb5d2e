"""A folder of models, each fetched once, pinned to a commit and checked against the hub's digests.

ROOT/BAAI--bge-reranker-v2-m3/
    model.json   the stored commits, the size and digest of each file, and the pinned commit
    COMMIT/      the files of a commit: safetensors, configuration, tokenizer, code that may run

A job without a revision uses the pinned commit, so that its model never changes by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from rankmill.contract.base import Contract, Since, parse
from rankmill.errors import InputError, ModelUnavailable
from rankmill.settings import settings

_INDEX = "model.json"


def _within(name: str) -> str:
    """Refuse a name that leads out of the commit's folder."""
    if "\0" in name or not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name[:80]!r} is not a file of the model")
    return name


class StoredFile(Contract):
    """A file by its path in the commit's folder."""

    name: Annotated[str, AfterValidator(_within)]
    n_bytes: int
    sha256: str


class StoredCommit(Contract):
    """A commit whose files are all in the store.

    Attributes:
        code: the repositories that keep the model's code, and the commit of each.
        pulled_at: when its files were fetched; None for a pull of an earlier release.
        license: of its card; None if it states none, or for a pull of an earlier release.
    """

    commit: str
    files: tuple[StoredFile, ...]
    code: Annotated[dict[str, str], Field(default_factory=dict), Since(minor=1)]
    pulled_at: Annotated[datetime | None, Since(minor=1)] = None
    license: Annotated[str | None, Since(minor=1)] = None

    @property
    def n_bytes(self) -> int:
        """The size of all files."""
        return sum(file.n_bytes for file in self.files)


class StoredModel(Contract):
    """The content of `model.json`.

    Attributes:
        revisions: the branches and tags that were pulled, and their commits.
    """

    model_id: str
    pinned: str
    revisions: dict[str, str]
    commits: tuple[StoredCommit, ...]

    def resolve(self, revision: str | None) -> StoredCommit | None:
        """Return the commit of a revision, by default the pinned one; None if it is not stored."""
        wanted = self.pinned if revision is None else self.revisions.get(revision, revision)
        return next((commit for commit in self.commits if commit.commit == wanted), None)


@dataclass(frozen=True)
class ModelStore:
    """A model store on a disk, shared by all workers that mount it."""

    root: Path

    def find(self, model_id: str, revision: str | None) -> Path:
        """Return the folder of a pulled model; check its files' sizes, but not their digests.

        Raises:
            ModelUnavailable: it was not pulled, or a file is missing or cut short.
        """
        model = self.read(model_id)
        stored = model.resolve(revision) if model else None
        if stored is None:
            asked = f"revision {revision} is " if revision else ""
            held = ""
            if model is not None:
                commits = (commit.commit[:12] for commit in model.commits)
                held = f" (of this model it holds {', '.join([*model.revisions, *commits])})"
            raise ModelUnavailable(
                f"{model_id}: {asked}not in the model store {self.root}{held}; "
                f"{how_to_pull(model_id, revision)}"
            )
        folder = self.folder(model_id, stored.commit)
        for file in stored.files:
            if _size(folder / file.name) != file.n_bytes:
                raise ModelUnavailable(
                    f"{folder / file.name}: missing or cut short; {how_to_pull(model_id, revision)}"
                )
        return folder

    def read(self, model_id: str) -> StoredModel | None:
        """Return the stored commits of a model, or None if it was never pulled.

        Raises:
            ModelUnavailable: its model.json cannot be read.
        """
        path = self._model_folder(model_id) / _INDEX
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelUnavailable(f"{path}: {error.strerror}") from error
        return parse(StoredModel, content, str(path))

    def models(self) -> list[StoredModel]:
        """Return all pulled models, sorted by name."""
        names = [path.parent.name for path in sorted(self.root.glob(f"*/{_INDEX}"))]
        return [model for model in map(self.read, names) if model is not None]

    def folder(self, model_id: str, commit: str) -> Path:
        """Return the folder of a commit, whether it exists or not."""
        return self._model_folder(model_id) / commit

    def damaged(self, model: StoredModel) -> list[Path]:
        """Read all files of a model and return those that differ from what was pulled."""
        return [
            path
            for stored in model.commits
            for file in stored.files
            for path in [self.folder(model.model_id, stored.commit) / file.name]
            if _size(path) != file.n_bytes or sha256_of(path) != file.sha256
        ]

    def record(self, model_id: str, revision: str | None, stored: StoredCommit) -> None:
        """Add a commit whose files are all there to model.json, and pin it."""
        before = self.read(model_id)
        others = [each for each in before.commits if each.commit != stored.commit] if before else []
        known = before.revisions if before else {}
        model = StoredModel(
            model_id=model_id,
            pinned=stored.commit,
            revisions={**known, **({revision: stored.commit} if revision else {})},
            commits=(*others, stored),
        )
        path = self._model_folder(model_id) / _INDEX
        new = path.with_suffix(".new")
        new.write_bytes(model.to_json())
        os.replace(new, path)

    @contextmanager
    def changing(self, model_id: str) -> Iterator[None]:
        """Lock a model while its files are fetched.

        Raises:
            InputError: another process has locked it, or the store cannot be written.
        """
        folder = self._model_folder(model_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        except OSError as error:
            raise InputError(
                f"{folder}: {error.strerror}; set RANKMILL_MODELS to a folder that can be written"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{model_id}: is being pulled by another process") from None
            yield

    def _model_folder(self, model_id: str) -> Path:
        return self.root / model_id.replace("/", "--")


def model_store() -> ModelStore | None:
    """Return the store at RANKMILL_MODELS, or None if that is not set."""
    root = settings().models
    return None if root is None else ModelStore(root.expanduser().absolute())


def how_to_pull(model_id: str, revision: str | None) -> str:
    """Return the advice for an absent model: the command, on a machine and in Compose."""
    what = f"pull {model_id}" + (f" --revision {revision}" if revision else "")
    return f"run `rankmill models {what}` (with Compose: `docker compose run --rm models {what}`)"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
