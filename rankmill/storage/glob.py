"""Glob patterns over URIs, the same on disk and on S3: `*` and `?` within a name, `**` across."""

from __future__ import annotations

import re
from functools import lru_cache

from rankmill.errors import InputError

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]")
_MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_glob(uri: str) -> bool:
    return _TOKENS.search(uri) is not None


def fixed_start(pattern: str) -> tuple[str, str]:
    """The deepest folder that all matches lie in, and the pattern's rest from its `/` on."""
    folder = _literal_start(pattern).rpartition("/")[0]
    return folder, pattern[len(folder) :]


def first_letters(pattern: str) -> str:
    """How all paths that match begin, a `/` before them left out."""
    return _literal_start(pattern).removeprefix("/")


def matches(uri: str, pattern: str) -> bool:
    """
    Raises:
        InputError: the pattern has a range like `[9-0]`.
    """
    return _compiled(pattern).fullmatch(uri) is not None


def may_lead_to(uri: str, pattern: str) -> bool:
    """Whether a match, or what lies in a folder that is one, may be there or further down."""
    for name, wanted in zip(uri.split("/"), pattern.split("/"), strict=False):
        if "**" in wanted:
            return True
        if not matches(name, wanted):
            return False
    return True


def _literal_start(pattern: str) -> str:
    first = _TOKENS.search(pattern)
    return pattern[: first.start()] if first else pattern


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts, at = [], 0
    for token in _TOKENS.finditer(pattern):
        parts.append(re.escape(pattern[at : token.start()]))
        parts.append(_MEANING.get(token[0]) or _one_of(token[0]))
        at = token.end()
    try:
        return re.compile("".join([*parts, re.escape(pattern[at:])]), re.DOTALL)
    except re.error as error:
        raise InputError(f"{pattern}: a range in [] ends before it begins") from error


def _one_of(token: str) -> str:
    """`[a-z_]` or `[!a-z_]` as a regular expression, to which other characters mean more."""
    content = token[1:-1]
    is_negated = len(content) > 1 and content[0] in "!^"
    ranges = re.findall(r".-.|.", content[is_negated:], re.DOTALL)
    members = "".join("-".join(map(re.escape, each[::2])) for each in ranges)
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
