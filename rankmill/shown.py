"""Text of users as people may see it: on one line, without secrets or what steers a terminal."""

from __future__ import annotations

import re

HIDDEN = "***"
_MAX_LETTERS = 1000
_LOGIN = re.compile(r"(?<=://)[^/\s'\"]*@")
_SIGNED = re.compile(
    r"([?&](?:x-amz-[\w-]+|[\w-]*signature|[\w-]*token|awsaccesskeyid|key-pair-id|policy|sig)=)"
    r"[^&\s'\"\\]+",
    re.IGNORECASE,
)
# Control characters, ends of lines, what turns the direction of writing, and halves of a pair.
_STEERING = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ALL_STEERING = re.compile(f"[{_STEERING}]")
_BUT_LINES = re.compile(f"(?!\\n)[{_STEERING}]")


def error_line(text: str) -> str:
    """Without secrets, on one line and no longer than a person reads: its beginning and end.

    What this gives it leaves as it is.
    """
    line = escaped(masked(text))
    if len(line) <= _MAX_LETTERS:
        return line
    n_last = _MAX_LETTERS // 3
    return f"{line[: _MAX_LETTERS - n_last - 1]}…{line[-n_last:]}"


def clipped(text: str, n_chars: int) -> str:
    """Return a text of at most `n_chars` characters; a cut one ends in `…`."""
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"


def value_text(value: object) -> str:
    """Return a table's value as text; bytes that are not UTF-8 get replacement characters."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def masked(text: str) -> str:
    """Without logins in URLs, and without what signs them."""
    return _SIGNED.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


def escaped(text: str) -> str:
    """On one line, with `\\x1b` for what steers a terminal."""
    return _ALL_STEERING.sub(_as_escape, text)


def escaped_lines(text: str) -> str:
    """As `escaped`, with the ends of lines as they are."""
    return _BUT_LINES.sub(_as_escape, text)


def _as_escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
