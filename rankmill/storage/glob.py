"""Match URIs with globs, equally on disk and S3: `*` and `?` within a name, `**` across names.

The time to match is at most proportional to the length of the name times that of the pattern. A
regular expression would backtrack: it tries all ways to split a name by `*a*a*a*b`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rankmill.errors import InputError
from rankmill.shown import clipped

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]")
_MAX_LETTERS = 4096  # of a path on Linux; a key on S3 has at most 1024
# Entries of a pattern's cache of transitions; a full cache is cleared.
_MAX_TRANSITIONS = 10_000


def is_glob(uri: str) -> bool:
    """Return whether a place has a wildcard.

    Raises:
        InputError: it is longer than any name.
    """
    return _TOKENS.search(_short(uri)) is not None


def fixed_start(pattern: str) -> tuple[str, str]:
    """Return the deepest folder of all matches, and the rest of the pattern from its `/` on."""
    folder = _literal_start(pattern).rpartition("/")[0]
    return folder, pattern[len(folder) :]


def first_letters(pattern: str) -> str:
    """Return the common beginning of all matches, without a leading `/`."""
    return _literal_start(pattern).removeprefix("/")


def matches(uri: str, pattern: str) -> bool:
    """Return whether the whole place matches the pattern.

    Raises:
        InputError: the pattern has a range like `[9-0]`, or is longer than any name.
    """
    return _compiled(pattern).matches(uri)


def may_lead_to(uri: str, pattern: str) -> bool:
    """Return whether a match may be here or below; also below a folder that is a match."""
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
    """A pattern as a state machine that follows all ways to match at once.

    Bit n of `states` means that the first n steps may be done. `**/` takes whole names; within a
    name its state is a second bit, `inside`.
    """

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps
        sets = {step for step in steps if step.startswith("[") and len(step) > 1}
        self._sets = {step: re.compile(_one_of(step), re.DOTALL) for step in sets}
        self._inside = len(steps) + 1
        self._transitions: dict[tuple[int, str], int] = {}

    def matches(self, uri: str) -> bool:
        """Return whether the whole place matches."""
        states = self._with_skips(1)
        for letter in uri:
            after = self._transitions.get((states, letter))
            if after is None:
                if len(self._transitions) >= _MAX_TRANSITIONS:
                    self._transitions.clear()
                after = self._transitions[states, letter] = self._with_skips(
                    self._after(states, letter)
                )
            if not after:
                return False
            states = after
        return bool(states >> len(self._steps) & 1)

    def _after(self, states: int, letter: str) -> int:
        after = 0
        for n, step in enumerate(self._steps):
            if states >> self._inside + n & 1:
                after |= 1 << (n if letter == "/" else self._inside + n)
            if not states >> n & 1:
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

    def _with_skips(self, states: int) -> int:
        """Add the states after steps that may match nothing: those that begin with `*`."""
        for n, step in enumerate(self._steps):
            if step[0] == "*" and states >> n & 1:
                states |= 1 << n + 1
        return states


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
    """Return `[a-z_]` or `[!a-z_]` as a regular expression, with special characters escaped."""
    content = token[1:-1]
    is_negated = len(content) > 1 and content[0] in "!^"
    ranges = re.findall(r".-.|.", content[is_negated:], re.DOTALL)
    members = "".join("-".join(map(re.escape, span[::2])) for span in ranges)
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
