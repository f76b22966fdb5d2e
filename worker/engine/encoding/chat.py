"""Encode pairs through a chat template, the prompt of LLM rerankers.

The rules are those of Sentence Transformers 6. A pair is one message of role `query` and one of
role `document`; a default prompt is the system message. The template's end replaces the last tokens
of a truncated pair, because the score is read there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.encoding.chat_loops import takes_linear_time
from worker.engine.folder.refusal import UnusableFolder, time_limit
from worker.engine.values import PairWindow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# These show that a template takes a message's content as a list of parts, not as a string.
_PART_SIGNS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")

# A template is a program: it may run forever, for any text or for some.
_RENDERING_S = 5.0

_FILLERS = ("0", "1 2 3 4")


class ChatEncoder:
    """An `Encoder` that renders and tokenizes each distinct pair of a window once."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        system_prompt: str | None = None,
        options: dict[str, Any] | None = None,
        message_format: str = "auto",
        limit_s: float = _RENDERING_S,
    ) -> None:
        """Try the tokenizer's chat template on short texts.

        Args:
            tokenizer: a tokenizer with a chat template.
            max_length: tokens that a pair is truncated to.
            system_prompt: content of a system message before the pair.
            options: further arguments of the template.
            message_format: `structured` for content as a list of parts, `flat` for a string, `auto`
                to decide by the template's text.
            limit_s: seconds for rendering one pair.

        Raises:
            UnusableFolder: the template does not show both texts, or leaves no room for them.
            TimeoutError: the template does not end.
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._system_prompt = system_prompt
        self._options = options or {}
        template = str(tokenizer.chat_template)
        self._takes_parts = message_format == "structured" or (
            message_format == "auto" and any(sign in template for sign in _PART_SIGNS)
        )
        self._is_limited = not takes_linear_time(template)
        self._limit_s = limit_s
        with self._limit():
            self._end = self._learn_end()
            shortest = self._render(_FILLERS[0], _FILLERS[0])
        n_shortest = len(self._tokenize([shortest])[0])
        if n_shortest > max_length:
            raise UnusableFolder(
                f"max_length {max_length} leaves no room for text: the chat template takes "
                f"{n_shortest} tokens with texts of one character"
            )

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`.

        Raises:
            TimeoutError: the template does not end for some pair.
        """
        pairs = DistinctPairs.of(window)
        rows = self._tokenize(
            [
                self._render(pairs.queries[query], pairs.documents[document])
                for query, document in zip(pairs.query_of_pair, pairs.document_of_pair, strict=True)
            ]
        )
        uncut = row_lengths(rows)
        kept = [self._cut(row) for row in rows]
        lengths = row_lengths(kept)
        return EncodedWindow(
            ids=flatten(kept, int(lengths.sum()), np.int32),
            types=None,
            lengths=lengths,
            truncated=uncut > lengths,
            pair_of_row=pairs.pair_of_row,
        )

    def _cut(self, row: list[int]) -> list[int]:
        if len(row) <= self._max_length:
            return row
        if self._tokenizer.truncation_side == "left":
            return row[-self._max_length :]
        end = self._end[-self._max_length :]
        return row[: self._max_length - len(end)] + end

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=False, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _render(self, query: str, document: str) -> str:
        messages = [self._message("query", query), self._message("document", document)]
        if self._system_prompt is not None:
            messages.insert(0, self._message("system", self._system_prompt))
        # The limit takes longer than the rendering, so it is set only where it is needed.
        with self._limit() if self._is_limited else nullcontext():
            return str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, **self._options)
            )

    def _limit(self) -> AbstractContextManager[None]:
        return time_limit(self._limit_s, "the chat template")

    def _message(self, role: str, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text}] if self._takes_parts else text
        return {"role": role, "content": content}

    def _learn_end(self) -> list[int]:
        """Return the tokens after the last text: the end that two renderings share."""
        short, long = (self._render(filler, filler) for filler in _FILLERS)
        if short.count(_FILLERS[0]) < 2 or long.count(_FILLERS[1]) < 2:
            raise UnusableFolder(
                f"{self._tokenizer.name_or_path}: the model's chat template does not render "
                "messages of role query and document; a reranker's template must show both texts"
            )
        first, second = self._tokenize([short, long])
        n_shared = 0
        while n_shared < len(first) and first[-1 - n_shared] == second[-1 - n_shared]:
            n_shared += 1
        return first[len(first) - n_shared :]
