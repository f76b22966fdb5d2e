"""The ids that a tokenizer's own files define: SentencePiece's, or byte-level BPE written out."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable

Ids = Callable[[str], list[int]]

# Ids of these classes are SentencePiece's, moved; an unknown piece has the id given second.
# (fairseq's vocabularies put their own special tokens first.)
_MOVED = {"XLMRobertaTokenizer": (1, 3), "CamembertTokenizer": (4, 3)}
_NOT_MOVED = ("T5Tokenizer", "DebertaV2Tokenizer", "AlbertTokenizer", "LlamaTokenizer")

# How OpenAI's GPT-2 and Qwen's cut a text into words before merging (their encoder.py and
# tokenization_qwen2.py), and whether the text is brought into NFC first.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = {
    **dict.fromkeys(("RobertaTokenizer", "GPT2Tokenizer", "BartTokenizer"), (_GPT2, False)),
    "Qwen2Tokenizer": (_QWEN2, True),
}


def sentencepiece_ids(path: Path, class_name: str) -> Ids:
    """Return the encoding of a SentencePiece model as a tokenizer of a class numbers it.

    Raises:
        ModelUnavailable: the file is damaged, or the class numbers its pieces in another way.
    """
    if class_name not in (*_MOVED, *_NOT_MOVED):
        raise ModelUnavailable(
            f"{path}: nothing says how {class_name} numbers the pieces of SentencePiece; "
            "add the model's tokenizer.json"
        )
    processor = read_sentencepiece(path)
    by, unknown = _MOVED.get(class_name, (0, processor.unk_id()))

    def encode(text: str) -> list[int]:
        ids: list[int] = processor.encode(text)
        return [unknown if each == processor.unk_id() else each + by for each in ids]

    return encode


def read_sentencepiece(path: Path) -> Any:
    """Return the processor of a SentencePiece model.

    Raises:
        ModelUnavailable: the file is not one, or is cut short.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ModelUnavailable(f"{path}: not a model of SentencePiece; fetch it again") from error


def byte_level_ids(folder: Path, class_name: str) -> Ids:
    """Return byte-level BPE by vocab.json and merges.txt, without special tokens.

    Raises:
        ModelUnavailable: a file is damaged, or the class cuts words in an unknown way.
    """
    import regex
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    if class_name not in _WORDS:
        raise ModelUnavailable(
            f"{folder}: nothing says how {class_name} cuts a text into words; add the model's "
            "tokenizer.json"
        )
    pattern, is_composed = _WORDS[class_name]
    try:
        vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().split("\n")
        rules = [line.split() for line in lines if line and not line.startswith("#version")]
        ranks = {(left, right): rank for rank, (left, right) in enumerate(rules)}
    except (ValueError, OSError) as error:
        raise ModelUnavailable(
            f"{folder}: vocab.json and merges.txt are not those of byte-level BPE ({error})"
        ) from error
    letters = bytes_to_unicode()

    @cache
    def merged(word: str) -> tuple[str, ...]:
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: ranks.get(pair, 1e9))
            if best not in ranks:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return tuple(parts)

    def encode(text: str) -> list[int]:
        text = unicodedata.normalize("NFC", text) if is_composed else text
        words = regex.findall(pattern, text)
        return [vocabulary.get(part, -1) for word in words for part in merged(word)]

    return encode
