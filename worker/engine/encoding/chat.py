"""Encode pairs through a chat template, the prompt of LLM rerankers.

The rules are those of Sentence Transformers 6. A pair is one message of role `query` and one of
role `document`; the prompt is the system message. The template's end replaces the last tokens
of a truncated pair, because the score is read there. Where the query comes after the document, it
belongs to the end.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.encoding.chat_loops import takes_linear_time
from worker.engine.folder.refusal import UnusableFolder, time_limit
from worker.engine.values import PairWindow, UnfitPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# These show that a template takes a message's content as a list of parts, not as a string.
_PART_SIGNS = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")

# Templates of Llama ask for today's date, unless they are given one as `date_string`.
_CLOCK = "strftime_now("

# A template is a program: it may run forever, for any text or for some.
_RENDERING_S = 5.0

# Beyond these, a template multiplies its texts, and tokenizing them takes hours.
_MOST_CHARS, _MOST_TIMES = 1_000_000, 10

_FILLERS = ("0", "1 2 3 4")


class ChatEncoder:
    """An `Encoder` that renders and tokenizes each distinct pair of a window once."""

    is_concurrent = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        template: str | None = None,
        system_prompt: str | None = None,
        options: dict[str, Any] | None = None,
        message_format: str = "auto",
        limit_s: float = _RENDERING_S,
    ) -> None:
        """Try the tokenizer's chat template on short texts.

        Args:
            tokenizer: a tokenizer with a chat template.
            max_length: tokens that a pair is truncated to.
            template: in place of the tokenizer's own.
            system_prompt: content of a system message before a pair that has no prompt of its own.
            options: further arguments of the template.
            message_format: `structured` for content as a list of parts, `flat` for a string, `auto`
                to decide by the template's text.
            limit_s: seconds for rendering one pair.

        Raises:
            UnusableFolder: the template does not show both texts, leaves no room for them, or asks
                for the time.
            TimeoutError: the template does not end.
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._system_prompt = system_prompt
        self._options = options or {}
        if template is not None:
            self._options = {**self._options, "chat_template": template}
        template = template or str(tokenizer.chat_template)
        self._takes_parts = message_format == "structured" or (
            message_format == "auto" and any(sign in template for sign in _PART_SIGNS)
        )
        is_own = "chat_template" not in self._options
        self._named = "the model's chat template" if is_own else "--chat-template"
        self._advice = (
            "; name its prompt with --chat-template or --input-template" if is_own else ""
        )
        if _CLOCK in template and "date_string" not in self._options:
            raise UnusableFolder(
                f"{tokenizer.name_or_path}: {self._named} asks for the time, so that scores would "
                "differ from day to day; give --chat-template with the date written out"
            )
        self._is_limited = not takes_linear_time(template)
        self._limit_s = limit_s
        try:
            with self._limit():
                self._end = self._learn_end()
                any_end = self._end_after(_FILLERS[0], system_prompt)
                shortest = self._render(_FILLERS[0], _FILLERS[0], system_prompt)
        except UnfitPair as error:  # of texts that fit every template
            raise UnusableFolder(f"{tokenizer.name_or_path}: {error}") from None
        self._ends_alike = len(self._end) == len(any_end)
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
            UnfitPair: the template makes too long a text of some pair, or a query that it shows
                after the document leaves no room.
        """
        pairs = DistinctPairs.of(window)
        prompts = [self._system_prompt if each is None else each for each in pairs.prompts]
        rows = self._tokenize(
            [
                self._render(pairs.queries[query], pairs.documents[document], prompts[query])
                for query, document in zip(pairs.query_of_pair, pairs.document_of_pair, strict=True)
            ]
        )
        uncut = row_lengths(rows)
        end_of = cache(lambda query: self._end_after(pairs.queries[query], prompts[query]))
        kept = [
            self._cut(row, end_of(query) if not self._ends_alike else self._end)
            if len(row) > self._max_length
            else row
            for row, query in zip(rows, pairs.query_of_pair.tolist(), strict=True)
        ]
        lengths = row_lengths(kept)
        return EncodedWindow(
            ids=flatten(kept, int(lengths.sum()), np.int32),
            types=None,
            lengths=lengths,
            truncated=uncut > lengths,
            pair_of_row=pairs.pair_of_row,
        )

    def shows_prompt(self) -> bool:
        """Return whether a system message is part of what the template renders."""
        with self._limit():
            texts = {self._render(_FILLERS[0], _FILLERS[0], each) for each in (None, *_FILLERS)}
        return len(texts) == len(_FILLERS) + 1

    def _cut(self, row: list[int], end: list[int]) -> list[int]:
        if self._tokenizer.truncation_side == "left":
            return row[-self._max_length :]
        if len(end) > self._max_length:
            raise UnfitPair(
                f"its query leaves no room for a document in {self._max_length:,} tokens; shorten "
                "it, or set --max-length higher"
            )
        return row[: self._max_length - len(end)] + end

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=False, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _render(self, query: str, document: str, prompt: str | None) -> str:
        messages = [self._message("query", query), self._message("document", document)]
        if prompt is not None:
            messages.insert(0, self._message("system", prompt))
        # The limit takes longer than the rendering, so it is set only where it is needed.
        with self._limit() if self._is_limited else nullcontext():
            text = str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, **self._options)
            )
        most = _MOST_CHARS + _MOST_TIMES * (len(query) + len(document) + len(prompt or ""))
        if len(text) > most:
            raise UnfitPair(
                f"{self._named} makes more than {_MOST_TIMES} times as many characters of its "
                "texts; give another one with --chat-template"
            )
        return text

    def _limit(self) -> AbstractContextManager[None]:
        return time_limit(self._limit_s, "the chat template")

    def _message(self, role: str, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text}] if self._takes_parts else text
        return {"role": role, "content": content}

    def _learn_end(self) -> list[int]:
        """Return the tokens after the last text: the end that two renderings share."""
        short, long = (self._render(each, each, self._system_prompt) for each in _FILLERS)
        if short.count(_FILLERS[0]) < 2 or long.count(_FILLERS[1]) < 2:
            raise UnusableFolder(
                f"{self._tokenizer.name_or_path}: {self._named} does not render "
                "messages of role query and document; a reranker's template must show both texts"
                f"{self._advice}"
            )
        return self._shared_end(short, long)

    def _end_after(self, query: str, prompt: str | None) -> list[int]:
        """Return the tokens after the document: with the query, if that comes behind it."""
        return self._shared_end(*(self._render(query, filler, prompt) for filler in _FILLERS))

    def _shared_end(self, one: str, other: str) -> list[int]:
        first, second = self._tokenize([one, other])
        n_shared = 0
        while n_shared < len(first) and first[-1 - n_shared] == second[-1 - n_shared]:
            n_shared += 1
        return first[len(first) - n_shared :]
