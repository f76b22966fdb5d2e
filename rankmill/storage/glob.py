"""Glob patterns over URIs, the same on disk and on S3: `*` and `?` within a name, `**` across.

The time to match grows with the length of the name times that of the pattern, and no faster: a
regular expression would try all ways in which `*a*a*a*b` might take a name apart.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rankmill.errors import InputError
from rankmill.shown import clipped

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]")
_MAX_LETTERS = 4096  # of a path on Linux; a key on S3 has 1024 at most
# What a pattern remembers of how it went on from where; more is forgotten.
_MAX_REMEMBERED = 10_000


def is_glob(uri: str) -> bool:
    return _TOKENS.search(_short(uri)) is not None


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
        InputError: the pattern has a range like `[9-0]`, or is longer than any name.
    """
    return _compiled(pattern).matches(uri)


def may_lead_to(uri: str, pattern: str) -> bool:
    """Whether a match, or what lies in a folder that is one, may be there or further down."""
    for name, wanted in zip(uri.split("/"), pattern.split("/"), strict=False):
        if "**" in wanted:
            return True
        if not matches(name, wanted):
            return False
    return True


def _short(pattern: str) -> str:
    if len(pattern) > _MAX_LETTERS:
        raise InputError(f"{clipped(pattern, 101)}: a name has at most {_MAX_LETTERS} characters")
    return pattern


def _literal_start(pattern: str) -> str:
    first = _TOKENS.search(_short(pattern))
    return pattern[: first.start()] if first else pattern


class _Glob:
    """All ways to match at once: bit n of `places` says that the first n steps may be done.

    `**/` takes whole names; within one, its place is held by a second bit, `inside`.
    """

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps
        sets = {step for step in steps if step.startswith("[") and len(step) > 1}
        self._sets = {step: re.compile(_one_of(step), re.DOTALL) for step in sets}
        self._inside = len(steps) + 1
        self._known: dict[tuple[int, str], int] = {}

    def matches(self, uri: str) -> bool:
        places = self._with_skips(1)
        for letter in uri:
            after = self._known.get((places, letter))
            if after is None:
                if len(self._known) >= _MAX_REMEMBERED:
                    self._known.clear()
                after = self._known[places, letter] = self._with_skips(self._after(places, letter))
            if not after:
                return False
            places = after
        return bool(places >> len(self._steps) & 1)

    def _after(self, places: int, letter: str) -> int:
        after = 0
        for n, step in enumerate(self._steps):
            if places >> self._inside + n & 1:
                after |= 1 << (n if letter == "/" else self._inside + n)
            if not places >> n & 1:
                continue
            if step == "**":
                after |= 1 << n
            elif step == "**/":
                after |= (letter != "/") << self._inside + n
            elif step == "*":
                after |= (letter != "/") << n
            else:
                after |= self._takes(step, letter) << n + 1
        return after

    def _takes(self, step: str, letter: str) -> bool:
        if step in self._sets:
            return self._sets[step].match(letter) is not None
        return letter != "/" if step == "?" else letter == step

    def _with_skips(self, places: int) -> int:
        """Whatever begins with `*` may stand for nothing."""
        for n, step in enumerate(self._steps):
            if step[0] == "*" and places >> n & 1:
                places |= 1 << n + 1
        return places


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> _Glob:
    steps, at = [], 0
    for token in _TOKENS.finditer(_short(pattern)):
        steps += [*pattern[at : token.start()], token[0]]
        at = token.end()
    try:
        return _Glob([*steps, *pattern[at:]])
    except re.error as error:
        raise InputError(f"{pattern}: a range in [] ends before it begins") from error


def _one_of(token: str) -> str:
    """`[a-z_]` or `[!a-z_]` as a regular expression, to which other characters mean more."""
    content = token[1:-1]
    is_negated = len(content) > 1 and content[0] in "!^"
    ranges = re.findall(r".-.|.", content[is_negated:], re.DOTALL)
    members = "".join("-".join(map(re.escape, each[::2])) for each in ranges)
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
