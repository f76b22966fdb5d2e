"""Encode windows of texts as token ids; choose the encoder of a model.

Each distinct text is tokenized once and each distinct pair joined once. The ids equal those of the
tokenizer's own pair encoding, which is used directly where halves cannot be joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rankmill.models.recipe import Recipe
from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.encoding.answers import check_recipe
from worker.engine.encoding.chat import ChatEncoder
from worker.engine.encoding.joining import JoinEncoder, untruncated
from worker.engine.encoding.pair_template import PairTemplate
from worker.engine.encoding.pieces import PieceEncoder
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableOption, reading
from worker.engine.values import PairWindow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoder(Protocol):
    """Encodes pairs of texts as a model expects them."""

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may encode windows at the same time."""
        ...

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Tokenize the distinct pairs of a window, truncated to the encoder's length."""
        ...


class PairwiseEncoder:
    """An `Encoder` by the tokenizer's own pair encoding: slower, correct for any tokenizer."""

    is_concurrent = False  # each call sets how the tokenizer truncates

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


class PreparedEncoder:
    """An `Encoder` of texts that a recipe changes first: strips them, puts prefixes before them.

    Where the model's input has no place for a prompt, it comes before the query, as in Sentence
    Transformers.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe, before_queries: str | None = None) -> None:
        """Wrap an encoder.

        Args:
            encoder: encodes the changed texts.
            recipe: says how to change them.
            before_queries: the prompt to put before each query without one of its own; None to pass
                prompts on.
        """
        self.is_concurrent = encoder.is_concurrent
        self._encoder = encoder
        self._recipe = recipe
        self._before_queries = before_queries

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`."""
        recipe, prompts = self._recipe, window.prompts
        queries: Sequence[str] = window.queries
        documents: Sequence[str] = window.documents
        if recipe.strip:
            queries = [text.strip() for text in queries]
            documents = [text.strip() for text in documents]
        if recipe.query_prefix:
            queries = [recipe.query_prefix + text for text in queries]
        if recipe.document_prefix:
            documents = [recipe.document_prefix + text for text in documents]
        if self._before_queries == "" and prompts is None:
            pass  # as for most models: the texts stay as they are, in Arrow's memory
        elif self._before_queries is not None:
            before = [None] * len(queries) if prompts is None else prompts
            queries = [
                (self._before_queries if prompt is None else prompt) + query
                for prompt, query in zip(before, queries, strict=True)
            ]
            prompts = None
        return self._encoder.encode(PairWindow(queries, documents, prompts))


def encoder_for(source: ModelFolder, *, max_length: int) -> Encoder:
    """Return the encoder that a model's recipe or folder asks for.

    Raises:
        UnusableOption: the job's prompt would have no effect, or it or a prefix takes the room of
            the texts.
        ValueError: `max_length` leaves no room for text, or the template shows no pair.
    """
    recipe, prompt = source.recipe, source.default_prompt
    check_recipe(source)
    if recipe.has_options:
        _check_room(source, max_length)
    asks_prompt = recipe.has_prompt_col or (recipe.has_options and recipe.prompt is not None)
    if recipe.pieces:
        if asks_prompt and not has_place_for_prompt(recipe):
            raise UnusableOption(
                f"--prompt: recipe {recipe.title} of {source.path} has no place for a prompt; "
                "leave it out, or give --input-template"
            )
        with reading(source.path, "the tokenizer"):
            return PreparedEncoder(PieceEncoder(source, max_length=max_length), recipe)
    if recipe.chat_template is not None or source.uses_template:
        with reading(source.path, "the chat template"):
            chat = ChatEncoder(
                source.tokenizer,
                max_length=max_length,
                template=recipe.chat_template,
                system_prompt=prompt,
                options=dict(source.settings.template_options),
                message_format=source.settings.message_format,
            )
            if asks_prompt and not chat.shows_prompt():
                raise UnusableOption(
                    f"--prompt: the chat template of {source.path} shows no message of role "
                    "system; leave the prompt out, or give --chat-template"
                )
        return PreparedEncoder(chat, recipe)
    with reading(source.path, "the tokenizer"):
        encoder = pair_encoder(source.tokenizer, max_length=max_length)
    return PreparedEncoder(encoder, recipe, prompt or "")


def _check_room(source: ModelFolder, max_length: int) -> None:
    """Refuse a text of the job that would push the query or the document out of the pair."""
    recipe = source.recipe
    texts = {
        "--prompt": source.default_prompt,
        "--query-prefix": recipe.query_prefix,
        "--document-prefix": recipe.document_prefix,
    }
    for flag, text in texts.items():
        if text is None:
            continue
        with reading(source.path, "the tokenizer"):
            ids = source.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) > max_length // 2:
            raise UnusableOption(
                f"{flag}: it takes {len(ids)} of a pair's {max_length} tokens, so that the texts "
                "would be cut away; shorten it, or give a longer --max-length"
            )


def has_place_for_prompt(recipe: Recipe) -> bool:
    """Return whether a prompt is part of the input that a recipe makes."""
    return any("{prompt}" in piece for piece in recipe.input_of(has_prompt=True))


def pair_length(source: ModelFolder, max_length: int | None) -> int:
    """Return the tokens that a pair is truncated to.

    Args:
        source: the model's folder and recipe.
        max_length: the job's; None for the recipe's default, else the model's limit.
    """
    limit, recipe = source.length_limit, source.recipe
    if max_length is None and recipe.max_length is not None:
        max_length = recipe.max_length
        if recipe.counts == "texts":
            max_length += PieceEncoder(source, max_length=limit).outer_tokens()
    return min(max_length or limit, limit)


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
