"""The limits on the part of a query and of a document that the model gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LongDocs = Literal["truncate", "max-passage", "first-and-last", "mean-top3"]


@dataclass(frozen=True)
class TextLimits:
    """The cuts of texts besides `max_length`.

    Attributes:
        long_docs: `truncate` cuts a document to what fits next to its query. The others score it in
            passages; its logit is that of the best one, of the better of first and last, or the
            mean of the best three.
        passage_tokens: the most tokens of a passage; None for what fits next to the query.
        passage_stride: tokens that a passage shares with the one before it.
        max_query_tokens: tokens that queries are cut to, or None.
        max_document_tokens: tokens that documents are cut to, or None.
    """

    long_docs: LongDocs = "truncate"
    passage_tokens: int | None = None
    passage_stride: int = 0
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None

    @property
    def has_passages(self) -> bool:
        """Whether documents are scored in passages."""
        return self.long_docs != "truncate"
