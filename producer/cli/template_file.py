"""Read a template from a file on the producer's disk."""

from __future__ import annotations

from pathlib import Path

from rankmill.errors import InputError

_MAX_BYTES = 400_000


def read_template(flag: str, name: str) -> str:
    """Return a template's text, without the line end that an editor adds to a file's last line.

    Raises:
        InputError: the file is missing, empty, too large or not text.
    """
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{flag} {name}: {reason}") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{flag} {name}: more than {_MAX_BYTES:,} bytes; a template is a text")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError(f"{flag} {name}: not UTF-8 text") from None
    if not text.strip():
        raise InputError(f"{flag} {name}: empty")
    return text
