"""Glob patterns over URIs, the same on disk and on S3: `*` and `?` within a name, `**` across."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]")
_MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_glob(uri: str) -> bool:
    return _TOKENS.search(uri) is not None


def escaped(uri: str) -> str:
    """The pattern that only this URI matches."""
    return re.sub(r"([*?[])", r"[\1]", uri)


def fixed_start(pattern: str) -> tuple[str, str]:
    """The deepest folder that all matches lie in, and how their path in it begins."""
    first = _TOKENS.search(pattern)
    folder, _, begins = pattern[: first.start() if first else None].rpartition("/")
    return folder, begins


def matches(uri: str, pattern: str) -> bool:
    return _compiled(pattern).fullmatch(uri) is not None


@lru_cache(maxsize=16)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts, at = [], 0
    for token in _TOKENS.finditer(pattern):
        parts.append(re.escape(pattern[at : token.start()]))
        meaning = _MEANING.get(token[0])
        parts.append(meaning if meaning else token[0].replace("[!", "[^"))
        at = token.end()
    return re.compile("".join([*parts, re.escape(pattern[at:])]), re.DOTALL)
