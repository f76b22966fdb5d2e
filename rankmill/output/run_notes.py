"""Remember the outputs of this user's local runs, so that `rankmill jobs` can list them.

Each output has a file in `$XDG_STATE_HOME/rankmill/runs`, by default under ~/.local/state. The
output itself holds the truth. With a home that is missing or read-only a run is only not listed.
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
    """Return the folder of these files, which may not exist.

    Raises:
        RuntimeError: this user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG Base Directory Specification says to ignore a relative path.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "rankmill" / "runs"


def note(output_uri: str) -> None:
    """Add an output to the list; log a warning if that fails."""
    try:
        place = _place(output_uri)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            file.write(output_uri)
        os.replace(file.name, place)
    except (OSError, RuntimeError) as error:
        log.warning("rankmill jobs will not list this run", error=str(error))


def noted() -> Iterator[str]:
    """Return the outputs on the list."""
    with suppress(OSError, RuntimeError):
        for path in sorted(folder().glob("*.uri")):
            with suppress(OSError, UnicodeDecodeError):
                yield path.read_text()


def forget(output_uri: str) -> None:
    """Remove an output from the list."""
    with suppress(OSError, RuntimeError):
        _place(output_uri).unlink(missing_ok=True)


def _place(output_uri: str) -> Path:
    return folder() / f"{hashlib.sha256(output_uri.encode()).hexdigest()[:16]}.uri"
