"""Note where this user's local runs write, so that they can be listed without a Redis.

A file an output in `$XDG_STATE_HOME/rankmill/runs`, by default under ~/.local/state. The output
itself holds the truth; a home that is missing or read-only only keeps the run off the list.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankmill.logs import get_logger

log = get_logger(__name__)


def folder() -> Path:
    """Return the folder of the notes, which may not exist.

    Raises:
        RuntimeError: this user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification).
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "rankmill" / "runs"


def note(output_uri: str) -> None:
    """Remember an output."""
    try:
        place = _place(output_uri)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            file.write(output_uri)
        os.replace(file.name, place)
    except (OSError, RuntimeError) as error:
        log.warning("rankmill jobs will not list this run", error=str(error))


def noted() -> Iterator[str]:
    """The outputs that are remembered."""
    with suppress(OSError, RuntimeError):
        for path in sorted(folder().glob("*.uri")):
            with suppress(OSError, UnicodeDecodeError):
                yield path.read_text()


def forget(output_uri: str) -> None:
    """Remember an output no longer."""
    with suppress(OSError, RuntimeError):
        _place(output_uri).unlink(missing_ok=True)


def _place(output_uri: str) -> Path:
    return folder() / f"{hashlib.sha256(output_uri.encode()).hexdigest()[:16]}.uri"
