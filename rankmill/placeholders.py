"""Split a template of the model's input at its placeholders, such as `{query}`.

The syntax is that of `str.format`: `{{` and `}}` mean braces. Nothing but names is taken, so that
no template can read an attribute.
"""

from __future__ import annotations

from collections.abc import Collection
from string import Formatter
from typing import NamedTuple

# The placeholders of --input-template.
TEXTS = ("query", "document", "prompt")


class Part(NamedTuple):
    """A literal text, and the placeholder after it; None at the template's end."""

    literal: str
    name: str | None


def split(template: str, allowed: Collection[str] = TEXTS) -> tuple[Part, ...]:
    """Return the parts of a template in order.

    Raises:
        ValueError: a brace is alone, or a placeholder is unknown.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces") from None
    known = ", ".join(f"{{{name}}}" for name in allowed)
    parts = []
    for literal, name, form, conversion in parsed:
        if name is not None and (name not in allowed or form or conversion):
            written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ValueError(
                f"unknown placeholder {{{written[:40]}}}; known are {known}, and {{{{ and }}}} "
                "for braces"
            )
        parts.append(Part(literal, name))
    return tuple(parts)


def check_input_template(template: str, *, has_prompt: bool) -> None:
    """Refuse a template that does not show a pair.

    Args:
        template: the value of --input-template.
        has_prompt: whether each pair has a prompt.

    Raises:
        ValueError: a placeholder is unknown, missing or there twice.
    """
    names = [part.name for part in split(template)]
    for name in ("query", "document"):
        if name not in names:
            raise ValueError(f"no {{{name}}}; a template shows both texts of a pair")
    if names.count("document") > 1:
        raise ValueError("{document} is there twice; it is cut where a pair is too long")
    if has_prompt and "prompt" not in names:
        raise ValueError("no {prompt}, so that the prompt would have no effect")
    if not has_prompt and "prompt" in names:
        raise ValueError("{prompt} needs --prompt or --prompt-col")
