"""Facts as people read them: a bold name and its value on each line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from rich.text import Text


def facts_text(facts: Sequence[tuple[str, str]], styles: Sequence[str] = ()) -> Text:
    """Return a line for each fact, never wrapped, so that a path can be copied.

    Args:
        facts: names and values. Further lines of a value are indented to its first.
        styles: the style of each name; bold without them.
    """
    width = max((len(name) for name, _ in facts), default=0)
    lines = Text(no_wrap=True, overflow="ignore")
    for (name, value), style in zip(facts, styles or repeat("bold"), strict=False):
        indented = value.replace("\n", "\n" + " " * (width + 2))
        lines.append(f"{name:<{width}}  ", style=style).append(f"{indented}\n")
    lines.rstrip()
    return lines


def count_text(n: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, such as `1 row` or `1,200 rows`.

    Args:
        n: the number.
        noun: the noun in the singular.
        plural: its plural, if that is not made by an `s`.
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def clock_text(seconds: float) -> str:
    """Return a duration as `0:01:02`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def price_text(price: float) -> str:
    """Return a price with two decimals, or with two digits where it is small."""
    return f"{price:,.2f}" if price >= 1 else f"{price:.2g}"


def p_value_text(p_value: float) -> str:
    """Return a p-value with four digits."""
    return "<0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
