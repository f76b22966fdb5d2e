"""Read the tokens that tokenizer.json adds to its vocabulary, without the vocabulary.

For these few, transformers parses the whole file in Python before the tokenizers library does. That
takes 0.5 s for 250,000 tokens.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

# The files of today begin with the added tokens. In the others, transformers may look for them.
_BEGINNING = 2**20

# transformers adds the tokens of these files, too, or takes them from the config.
_OTHERS = ("special_tokens_map.json", "added_tokens.json")
_OF_CONFIG = ("added_tokens_decoder", "fast_tokenizer_files")

_SPACE = re.compile(r"[ \t\n\r]*")


def added_tokens(folder: Path, config: dict[str, Any]) -> dict[int, AddedToken] | None:
    """Return the added tokens by id, as transformers makes them; None where it has to do it.

    Args:
        folder: a model's folder.
        config: the content of its tokenizer_config.json.
    """
    file = folder / "tokenizer.json"
    has_others = any((folder / name).exists() for name in _OTHERS)
    if has_others or any(key in config for key in _OF_CONFIG):
        return None
    try:
        with file.open(encoding="utf-8") as text:
            found = _value(text.read(_BEGINNING), "added_tokens")
        return {token.pop("id"): AddedToken(**token) for token in found}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # transformers reads the file as well, and names what is wrong


def _value(text: str, wanted: str) -> Any:
    """Return the value of a key of the JSON object that a text begins with.

    Raises:
        ValueError, LookupError: the text ends before it.
    """
    decoder = json.JSONDecoder()

    def after_space(at: int) -> int:
        space = _SPACE.match(text, at)
        assert space is not None  # it matches nothing, too
        return space.end()

    at = text.index("{")
    while text[at] in "{,":
        key, at = decoder.raw_decode(text, after_space(at + 1))
        value, at = decoder.raw_decode(text, after_space(after_space(at) + 1))
        if key == wanted:
            return value
        at = after_space(at)
    raise LookupError(wanted)
