"""Encode windows of texts as token ids; choose the encoder of a model.

Each distinct text is tokenized once and each distinct pair joined once. The ids equal those of the
tokenizer's own pair encoding, which is used directly where halves cannot be joined.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Protocol

import numpy as np

from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.encoding.chat import ChatEncoder
from worker.engine.encoding.joining import JoinEncoder, untruncated
from worker.engine.encoding.pair_template import PairTemplate
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import reading
from worker.engine.values import PairWindow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoder(Protocol):
    """Encodes pairs of texts as a model expects them."""

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Tokenize the distinct pairs of a window, truncated to the encoder's length."""
        ...


class PairwiseEncoder:
    """An `Encoder` by the tokenizer's own pair encoding: slower, correct for any tokenizer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int, with_types: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._with_types = with_types

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`."""
        pairs = DistinctPairs.of(window)
        queries = [pairs.queries[i] for i in pairs.query_of_pair]
        documents = [pairs.documents[i] for i in pairs.document_of_pair]
        full = self._tokenizer(queries, documents, truncation=False, verbose=False)
        cut = self._tokenizer(
            queries, documents, truncation="longest_first", max_length=self._max_length
        )
        lengths = row_lengths(cut["input_ids"])
        return EncodedWindow(
            ids=flatten(cut["input_ids"], int(lengths.sum()), np.int32),
            types=(
                flatten(cut["token_type_ids"], int(lengths.sum()), np.uint8)
                if self._with_types
                else None
            ),
            lengths=lengths,
            truncated=row_lengths(full["input_ids"]) > lengths,
            pair_of_row=pairs.pair_of_row,
        )


def pair_encoder(tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Encoder:
    """Return the fastest encoder that equals this tokenizer's pair encoding on probe texts.

    Args:
        tokenizer: the tokenizer of a model.
        max_length: tokens that a pair is truncated to.
    """
    with_types = "token_type_ids" in tokenizer("a", "b")
    pairwise = PairwiseEncoder(tokenizer, max_length=max_length, with_types=with_types)
    if not tokenizer.is_fast:
        return pairwise
    # Not a copy: a large tokenizer takes seconds and memory.
    backend = tokenizer.backend_tokenizer
    template = PairTemplate.learn(untruncated(backend))
    if template is None:
        return pairwise
    join = JoinEncoder(
        backend,
        template,
        max_length=max_length,
        keep_end=tokenizer.truncation_side == "left",
        with_types=with_types,
    )
    return join if _agree(join, pairwise, max_length=max_length) else pairwise


class PromptedEncoder:
    """An `Encoder` that puts a prompt before each query, as Sentence Transformers does."""

    def __init__(self, encoder: Encoder, prompt: str) -> None:
        self._encoder = encoder
        self._prompt = prompt

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`."""
        queries = [self._prompt + query for query in window.queries]
        return self._encoder.encode(PairWindow(queries, window.documents))


def encoder_for(source: ModelFolder, *, max_length: int) -> Encoder:
    """Return the encoder that a model's folder asks for: template, prompt and tokenizer.

    Raises:
        ValueError: `max_length` leaves no room for text, or the chat template shows no pair.
    """
    prompt = source.default_prompt
    if source.uses_template:
        with reading(source.path, "the chat template"):
            return ChatEncoder(
                source.tokenizer,
                max_length=max_length,
                system_prompt=prompt,
                options=dict(source.settings.template_options),
                message_format=source.settings.message_format,
            )
    with reading(source.path, "the tokenizer"):
        encoder = pair_encoder(source.tokenizer, max_length=max_length)
    return encoder if prompt is None else PromptedEncoder(encoder, prompt)


# Models without a limit are not truncated, so nothing needs a probe beyond this.
_LONGEST_PROBE = 8192

# Scripts and boundaries that are known to trip a tokenizer, and the empty text.
_PROBE_TEXTS = (
    "",
    "a",
    " leading and trailing ",
    "It's a dog-eared list: 1,234.5 items!",
    "two\nlines\tand a tab",
    "Grüße, naïve café",
    "日本語の文章です。",
    "emoji 🙂 and <unk> [MASK] </s> tokens",
)


def _agree(join: Encoder, pairwise: Encoder, *, max_length: int) -> bool:
    # Barely too long: a tokenizer builds every combination of the parts that it cuts off.
    long = "word " * (min(max_length, _LONGEST_PROBE) + 1)
    crossed = [*product(_PROBE_TEXTS, repeat=2), (long, long), (long, "a"), ("a", long)]
    window = PairWindow([query for query, _ in crossed], [document for _, document in crossed])
    joined, expected = join.encode(window), pairwise.encode(window)
    arrays = [
        (getattr(joined, name), getattr(expected, name))
        for name in ("ids", "types", "lengths", "truncated")
    ]
    return all(a is b if a is None or b is None else np.array_equal(a, b) for a, b in arrays)
