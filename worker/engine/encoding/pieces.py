"""Encode pairs by a template of pieces, each tokenized as one text.

A pair that is too long loses tokens of its document, then of its query, each from that text's end.
The template's own tokens all stay, since the score is read behind the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rankmill.models.recipe import PLACEHOLDERS
from rankmill.placeholders import Part, split
from worker.engine.batches.pairs import DistinctPairs, EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.encoding.joining import untruncated
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.values import PairWindow, UnfitPair

if TYPE_CHECKING:
    from tokenizers import Encoding

_CHUNK_TEXTS = 256  # the library's encodings take a hundred bytes a token
_USUAL_QUERY_SHARE = 0.75  # in FlagEmbedding and mxbai-rerank, too

Texts = dict[str, str]  # by placeholder


class Span(NamedTuple):
    """The tokens of a text inside a piece."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of tokens."""
        return max(0, self.stop - self.start)


@dataclass(frozen=True)
class Cell:
    """A tokenized piece of one pair."""

    ids: list[int]
    document: Span | None = None
    queries: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A piece of a template."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, text: str) -> Piece:
        """Split a piece of a recipe at its placeholders."""
        return cls(split(text, PLACEHOLDERS))

    def shows(self, *names: str) -> bool:
        """Return whether it has one of these placeholders."""
        return any(part.name in names for part in self.parts)

    def render(self, texts: Texts) -> tuple[str, list[tuple[str, int, int]]]:
        """Return the text, and each filled-in text's name, first character and end."""
        rendered, places = "", []
        for literal, name in self.parts:
            rendered += literal
            if name is not None:
                places.append((name, len(rendered), len(rendered) + len(texts[name])))
                rendered += texts[name]
        return rendered, places


class PieceEncoder:
    """An `Encoder` by the pieces of a recipe."""

    is_concurrent = False

    def __init__(self, source: ModelFolder, *, max_length: int) -> None:
        """Tokenize the template with short texts.

        Args:
            source: a folder with a recipe that has pieces.
            max_length: tokens that a pair is truncated to.

        Raises:
            UnusableFolder: the template leaves no room for texts, or the tokenizer does not report
                which tokens come from which text.
        """
        self._source, self._recipe = source, source.recipe
        self._max_length = max_length
        if not source.tokenizer.is_fast:
            raise UnusableFolder(
                f"{source.path}: a template needs a tokenizer.json; save the tokenizer with "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
        self._with_types = "token_type_ids" in source.tokenizer("a")
        prompts = [self._recipe.prompt]
        if self._recipe.has_prompt_col:
            prompts.append("a")
        for prompt in prompts:
            if prompt is None and self._recipe.has_prompt_col and not self._may_lack_prompt():
                continue
            n_shortest = sum(len(cell.ids) for cell in self._cells_of(prompt))
            if n_shortest > max_length:
                raise UnusableFolder(
                    f"max_length {max_length} leaves no room for text: the template takes "
                    f"{n_shortest} tokens with texts of one character"
                )

    def encode(self, window: PairWindow) -> EncodedWindow:
        """Encode a window as `Encoder.encode`.

        Raises:
            UnfitPair: a pair's prompt leaves no room.
        """
        pairs = DistinctPairs.of(window)
        prompts = [self._recipe.prompt if each is None else each for each in pairs.prompts]
        kept: list[list[int]] = [[]] * len(pairs.query_of_pair)
        uncut = np.zeros(len(kept), dtype=np.int64)
        has_prompt = np.array([prompt is not None for prompt in prompts], dtype=bool)
        for with_prompt in (False, True):
            chosen = np.flatnonzero(has_prompt[pairs.query_of_pair] == with_prompt)
            if not len(chosen):
                continue
            pieces = self._pieces(has_prompt=with_prompt)
            rows = self._cells(pieces, pairs, prompts, chosen)
            outer = _outer(pieces)
            for pair, cells in zip(chosen.tolist(), rows, strict=True):
                uncut[pair] = sum(len(cell.ids) for cell in cells)
                kept[pair] = self._fitted(cells, outer)
        lengths = row_lengths(kept)
        n_tokens = int(lengths.sum())
        return EncodedWindow(
            ids=flatten(kept, n_tokens, np.int32),
            types=np.zeros(n_tokens, dtype=np.uint8) if self._with_types else None,
            lengths=lengths,
            truncated=uncut > lengths,
            pair_of_row=pairs.pair_of_row,
        )

    def outer_tokens(self) -> int:
        """Return the tokens of the constant pieces before and after both texts, without {bos}."""
        cells = self._cells_of(self._recipe.prompt)
        pieces = self._pieces(has_prompt=self._recipe.prompt is not None)
        return sum(len(cells[at].ids) for at in _outer(pieces))

    def _pieces(self, *, has_prompt: bool) -> list[Piece]:
        return [Piece.of(text) for text in self._recipe.input_of(has_prompt=has_prompt)]

    def _may_lack_prompt(self) -> bool:
        return not any(piece.shows("prompt") for piece in self._pieces(has_prompt=False))

    def _cells_of(self, prompt: str | None) -> list[Cell]:
        """Return the pieces of the shortest pair with this prompt."""
        pieces = self._pieces(has_prompt=prompt is not None)
        pairs = DistinctPairs.of(PairWindow(["0"], ["0"]))
        (cells,) = self._cells(pieces, pairs, [prompt], np.zeros(1, dtype=np.int64))
        return cells

    def _cells(
        self,
        pieces: Sequence[Piece],
        pairs: DistinctPairs,
        prompts: Sequence[str | None],
        chosen: np.ndarray,
    ) -> list[list[Cell]]:
        """Return the pieces of some pairs; what pairs share is tokenized once."""
        rows: list[list[Cell]] = [[] for _ in chosen]
        for piece in pieces:
            by_query, by_document = piece.shows("query", "prompt"), piece.shows("document")
            keys = [
                (query if by_query else 0, document if by_document else 0)
                for query, document in zip(
                    pairs.query_of_pair[chosen].tolist(),
                    pairs.document_of_pair[chosen].tolist(),
                    strict=True,
                )
            ]
            distinct = list(dict.fromkeys(keys))
            texts = [
                {
                    "query": pairs.queries[query],
                    "document": pairs.documents[document],
                    "prompt": prompts[query] or "",
                }
                for query, document in distinct
            ]
            cells = dict(zip(distinct, self._tokenize(piece, texts), strict=True))
            for row, key in zip(rows, keys, strict=True):
                row.append(cells[key])
        return rows

    def _tokenize(self, piece: Piece, texts: Sequence[Texts]) -> list[Cell]:
        tokenizer = self._source.tokenizer
        if piece.parts == (Part("", "bos"),):
            if tokenizer.bos_token_id is None:
                raise UnusableFolder(f"{self._source.path}: the tokenizer has no bos_token")
            return [Cell([tokenizer.bos_token_id])] * len(texts)
        adds_specials = self._recipe.special_tokens and not piece.parts[0].literal.startswith(
            tuple(tokenizer.all_special_tokens)
        )
        cells: list[Cell] = []
        for start in range(0, len(texts), _CHUNK_TEXTS):
            rendered = [piece.render(each) for each in texts[start : start + _CHUNK_TEXTS]]
            encodings = untruncated(tokenizer.backend_tokenizer).encode_batch(
                [text for text, _ in rendered], add_special_tokens=adds_specials
            )
            for encoding, (_, places) in zip(encodings, rendered, strict=True):
                spans = [(name, _span(encoding, first, stop)) for name, first, stop in places]
                cells.append(
                    Cell(
                        encoding.ids,
                        next((span for name, span in spans if name == "document"), None),
                        tuple(span for name, span in spans if name == "query"),
                    )
                )
        return cells

    def _fitted(self, cells: list[Cell], outer: Sequence[int]) -> list[int]:
        """Return a pair's tokens, of `max_length` at most."""
        share = self._recipe.query_share
        over = sum(len(cell.ids) for cell in cells) - self._max_length
        if over <= 0 and share is None:
            return [token for cell in cells for token in cell.ids]
        room = self._max_length - sum(len(cells[at].ids) for at in outer)
        most = int((_USUAL_QUERY_SHARE if share is None else share) * room)
        documents = [(at, cell.document) for at, cell in enumerate(cells) if cell.document]
        queries = [(at, span) for at, cell in enumerate(cells) for span in cell.queries]
        removed: list[tuple[int, Span]] = []  # the place of a cell, and tokens of it
        left = []
        for at, span in queries:
            n_counted = span.size if cells[at].document else len(cells[at].ids)
            cut = min(max(0, n_counted - most), span.size)
            cut = min(cut, max(0, over)) if share is None else cut
            removed.append((at, Span(span.stop - cut, span.stop)))
            left.append((at, Span(span.start, span.stop - cut)))
            over -= cut
        for at, span in [*documents, *reversed(left)]:
            cut = min(max(0, over), span.size)
            removed.append((at, Span(span.stop - cut, span.stop)))
            over -= cut
        if over > 0:
            raise UnfitPair(
                f"its prompt leaves no room for text in {self._max_length:,} tokens; shorten it, "
                "or set --max-length higher"
            )
        kept = [list(cell.ids) for cell in cells]
        for at, span in sorted(removed, key=lambda each: each[1].start, reverse=True):
            del kept[at][span.start : span.stop]
        return [token for ids in kept for token in ids]


def _outer(pieces: Sequence[Piece]) -> list[int]:
    """Return the places of the pieces before the first text and after the last, without {bos}."""
    shown = [at for at, piece in enumerate(pieces) if piece.shows("query", "document")]
    return [
        at
        for at, piece in enumerate(pieces)
        if not shown[0] <= at <= shown[-1] and not piece.shows("bos")
    ]


def _span(encoding: Encoding, first: int, stop: int) -> Span:
    """Return the tokens that come from the characters `first` to `stop` and from no others."""
    places = (encoding.char_to_token(at) for at in range(first, stop))
    start = next((place for place in places if place is not None), None)
    places = (encoding.char_to_token(at) for at in range(stop - 1, first - 1, -1))
    end = next((place for place in places if place is not None), None)
    if start is None or end is None:
        return Span(0, 0)
    while start <= end and encoding.offsets[start][0] < first:
        start += 1
    # A character may be several tokens, of which the first is known.
    while end + 1 < len(encoding.ids) and encoding.offsets[end + 1] == encoding.offsets[end]:
        end += 1
    while end >= start and encoding.offsets[end][1] > stop:
        end -= 1
    return Span(start, end + 1)
