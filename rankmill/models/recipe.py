"""A recipe: how a model turns a pair into its input, and its output into a score.

This module needs the standard library alone, since the engine reads it, too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

# The placeholders of a piece; {bos} is the tokenizer's first token.
PLACEHOLDERS = ("query", "document", "prompt", "bos")


@dataclass(frozen=True)
class Recipe:
    """The recipe of a published model, of a job's options, or of both; empty without either.

    A piece is a text with placeholders that is tokenized by itself. The pieces' tokens follow each
    other.

    Attributes:
        name: the recipe's name in the registry; empty for options alone.
        pieces: the model's input; empty where the folder says it.
        prompted: the input of a pair with a prompt, where it is another one.
        prompt: the instruction; None for none, or for the folder's own.
        chat_template: Jinja, in place of the folder's.
        special_tokens: whether the tokenizer adds its special tokens to the one piece.
        strip: whether texts lose white space at their ends.
        query_prefix: text before each query.
        document_prefix: text before each document.
        yes: the token that means relevant, by its text or as `id:N`.
        no: the token that means irrelevant; None if the score is by `yes` alone.
        yes_id: the id that `yes` has in the published model.
        no_id: the id that `no` has there.
        tokens: texts that are one token each in the published model.
        divide_by: the logit is divided by it.
        activation: the function from logit to score; None for the folder's.
        max_length: tokens of a pair by default; None for the model's limit.
        counts: the tokens that `max_length` counts; `texts` leaves out constant outer pieces.
        query_share: share of the length that a query never exceeds; None for 3/4 in long pairs.
        has_options: whether a job's options are part of it.
        has_prompt_col: whether pairs have prompts of their own.
    """

    name: str = ""
    pieces: tuple[str, ...] = ()
    prompted: tuple[str, ...] = ()
    prompt: str | None = None
    chat_template: str | None = None
    special_tokens: bool = False
    strip: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    yes: str | None = None
    no: str | None = None
    yes_id: int | None = None
    no_id: int | None = None
    tokens: tuple[str, ...] = ()
    divide_by: float = 1.0
    activation: Literal["sigmoid", "none"] | None = None
    max_length: int | None = None
    counts: Literal["all", "texts"] = "all"
    query_share: float | None = None
    has_options: bool = False
    has_prompt_col: bool = False

    @property
    def title(self) -> str | None:
        """The recipe's name for people; None if it is empty."""
        if self.has_options:
            return f"{self.name} with options" if self.name else "options"
        return self.name or None

    @property
    def sha256(self) -> str | None:
        """A digest of everything in it; None if it is empty."""
        if self.title is None:
            return None
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def input_of(self, *, has_prompt: bool) -> tuple[str, ...]:
        """Return the pieces of a pair with or without a prompt."""
        return self.prompted if has_prompt and self.prompted else self.pieces
