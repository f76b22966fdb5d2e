"""The Hugging Face hub: what a repository holds, its files, and its errors as ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import ModelUnavailable, StorageRefused

_AWAY = "the hub is out of reach"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class HubFile:
    """A file of a commit; large ones come with a sha256, the others with git's digest."""

    name: str
    n_bytes: int
    sha256: str | None
    git_sha1: str


@dataclass(frozen=True)
class HubCommit:
    commit: str
    files: tuple[HubFile, ...]  # everything in the repository


def cached(model_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a model in the hub client's own cache, fetched if need be.

    The client matches a pattern with the whole path, so that subfolders are fetched, too.

    Raises:
        ModelUnavailable: saying what is wrong and what to do.
    """
    what_to_do = "give a folder with --model PATH, or --model demo to try"
    with _hub_errors(model_id, revision, f"not in the local cache and {_AWAY}", what_to_do):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(patterns)))


def look_up(model_id: str, revision: str | None) -> HubCommit:
    """What the hub has under a revision now, its main branch by default.

    Raises:
        ModelUnavailable: saying what is wrong and what to do.
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
                name=each.rfilename,
                n_bytes=each.size or 0,
                sha256=each.lfs.sha256 if each.lfs else None,
                git_sha1=each.blob_id or "",
            )
            for each in info.siblings or []
        ),
    )


def download(model_id: str, commit: str, file: HubFile, target: Path) -> None:
    """Fetch a file, going on from what stands in `target` of an earlier try.

    The client's own download throws away what an interrupted process has fetched of a file.

    Raises:
        ModelUnavailable: it did not arrive; what did stays in `target`.
        StorageRefused: it cannot be written.
    """
    goes_on = "run the same command again, it goes on where this one stopped"
    with _hub_errors(model_id, commit, f"{file.name} did not arrive: {_AWAY}", goes_on):
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        # Public, but made when it is first asked for, where mypy does not see it.
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        # Sizes and ranges are those of the plain bytes.
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
    """Raise ModelUnavailable for whatever keeps the hub from serving a model."""
    # Comes with the worker's dependencies; a producer alone has no use for it.
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
    except Exception as error:  # the hub's client raises many kinds for one trouble: no answer
        if isinstance(error, OSError) and error.errno in _DISK:
            raise StorageRefused(f"{error.filename or model_id}: {error.strerror}") from error
        raise ModelUnavailable(
            f"{model_id}: {trouble} ({type(error).__name__}); {what_to_do}"
        ) from error
