"""Read models from the Hugging Face hub; all its errors become ModelUnavailable."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable, StorageRefused

_AWAY = "the hub is out of reach"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class HubFile:
    """A file of a commit. Large files have a sha256, the others only git's digest."""

    name: str
    n_bytes: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True)
class HubCommit:
    """A commit and all files of the repository at it.

    Attributes:
        license: of its card; None if it states none.
    """

    commit: str
    files: tuple[HubFile, ...]
    license: str | None = None


def cached(model_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return a model's folder in the hub client's own cache, and fetch it if it is missing.

    The client matches a pattern with the whole path, so that subfolders are fetched, too.

    Raises:
        ModelUnavailable: the hub is out of reach, or has no such model or revision.
    """
    what_to_do = "give a folder with --model PATH, or --model demo to try"
    with _hub_errors(model_id, revision, f"not in the local cache and {_AWAY}", what_to_do):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(patterns)))


def look_up(model_id: str, revision: str | None) -> HubCommit:
    """Return the commit that a revision is at now; the main branch by default.

    Raises:
        ModelUnavailable: the hub is out of reach, or has no such model or revision.
    """
    with _hub_errors(model_id, revision, _AWAY, "is HF_ENDPOINT right, is HF_HUB_OFFLINE set?"):
        from huggingface_hub import HfApi

        info = HfApi().model_info(model_id, revision=revision, files_metadata=True)
    if info.sha is None:
        raise ModelUnavailable(f"{model_id}: the hub names no commit")
    return HubCommit(
        commit=info.sha,
        files=tuple(
            HubFile(
                name=file.rfilename,
                n_bytes=file.size or 0,
                sha256=file.lfs.sha256 if file.lfs else None,
                git_sha1=file.blob_id or "",
            )
            for file in info.siblings or []
        ),
        license=stated_license(info.card_data.get) if info.card_data else None,
    )


def stated_license(value_of: Callable[[str], Any]) -> str | None:
    """Return the license of a card; one without a short name has `license_name`.

    Args:
        value_of: returns a value of the card's front matter, or None.
    """
    names = value_of("license"), value_of("license_name")
    chosen = names[1] if names[0] == "other" and names[1] else names[0]
    return str(chosen) if chosen else None


def download(model_id: str, commit: str, file: HubFile, target: Path) -> None:
    """Fetch a file, and resume from the bytes that an earlier try left in `target`.

    The client's own download discards the bytes that an interrupted process has fetched.

    Raises:
        ModelUnavailable: it did not arrive whole; the bytes that did stay in `target`.
        StorageRefused: `target` cannot be written.
    """
    resume = "run the same command again; it resumes where this one stopped"
    with _hub_errors(model_id, commit, f"{file.name} did not arrive: {_AWAY}", resume):
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        # Public, but defined lazily, so that mypy does not see it.
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        # Without compression, so that sizes and ranges are those of the file.
        headers = {**build_hf_headers(), "accept-encoding": "identity"}
        url = hf_hub_url(model_id, file.name, revision=commit)
        with target.open("ab") as content:
            http_get(
                url,
                content,
                resume_size=content.tell(),
                headers=headers,
                expected_size=file.n_bytes,
                displayed_filename=file.name,
            )


@contextmanager
def _hub_errors(
    model_id: str, revision: str | None, trouble: str, what_to_do: str
) -> Iterator[None]:
    """Raise ModelUnavailable with one line for every error of the hub's client."""
    # A dependency of the worker; a producer alone does not need it.
    try:
        from huggingface_hub.errors import (
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ModelUnavailable(
            f"{model_id}: fetching from the hub needs its client (pip install 'rankmill[hub]')"
        ) from error
    try:
        yield
    except HFValidationError:
        raise ModelUnavailable(f"{model_id}: neither a folder nor a hub id (owner/name)") from None
    except RepositoryNotFoundError:
        raise ModelUnavailable(
            f"{model_id}: the hub has no such model, or it needs a token (HF_TOKEN)"
        ) from None
    except RevisionNotFoundError:
        raise ModelUnavailable(f"{model_id}: the hub knows no revision {revision}") from None
    except Exception as error:  # the client raises many kinds when the hub is away
        if isinstance(error, OSError) and error.errno in _DISK:
            raise StorageRefused(f"{error.filename or model_id}: {error.strerror}") from error
        raise ModelUnavailable(
            f"{model_id}: {trouble} ({type(error).__name__}); {what_to_do}"
        ) from error
