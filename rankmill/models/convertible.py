"""The files of a model that `rankmill models convert` can turn into those that a load takes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from rankmill.models.weights import INDEX, PICKLED, PICKLED_INDEX, WEIGHTS

_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_BYTE_LEVEL = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Lacking:
    """The files that a model lacks and that its other files can give.

    Attributes:
        weights: there are only pickled weights.
        tokenizer: there is no tokenizer.json, but the files that one is made of.
    """

    weights: bool
    tokenizer: bool

    def __bool__(self) -> bool:
        return self.weights or self.tokenizer


def lacking(names: Set[str], modules: Sequence[str] = ()) -> Lacking:
    """Return what can be made for a model.

    Args:
        names: the paths of its files.
        modules: the subfolders of its modules.
    """
    in_one_file = any(
        f"{folder}{PICKLED}" in names and f"{folder}{WEIGHTS}" not in names
        for folder in ("", *(f"{name}/" for name in modules))
        if folder or INDEX not in names
    )
    in_shards = PICKLED_INDEX in names and not names & {PICKLED, WEIGHTS, INDEX}
    has_tokenizer = bool(names & {"tokenizer.json", "vocab.txt"})
    return Lacking(
        weights=in_one_file or in_shards,
        tokenizer=not has_tokenizer and bool(tokenizer_sources(names)),
    )


def tokenizer_sources(names: Set[str]) -> list[str]:
    """Return the files that a tokenizer.json can be made of; empty if there are none."""
    found = [name for name in _SENTENCEPIECE if name in names]
    return found or (list(_BYTE_LEVEL) if names >= set(_BYTE_LEVEL) else [])
