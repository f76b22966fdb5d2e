"""A tokenizer.json from SentencePiece or from vocab.json and merges.txt, with equal ids or none.

transformers makes the file. It may follow other rules than the model's own files. So its ids are
compared with the reference on texts of every kind that is known to confuse a tokenizer.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.convertible import tokenizer_sources
from worker.conversion.reference import Ids, byte_level_ids, read_sentencepiece, sentencepiece_ids
from worker.engine.folder.refusal import reading, silent
from worker.models import loading

TOKENIZER = "tokenizer.json"

# Escapes stand for characters that look like others.
_TEXTS = (
    *("", " ", "a", "Hello world", "  leading and trailing  ", "a  b   c", "MiXeD CASE, ÀÉÎ"),
    *("two\nlines\tand a tab\r\n", "\n\n\tonly\n", "It's a dog-eared list: 1,234.5 items!"),
    *("don't, WE'LL, they've; 'quoted'", "http://example.com/?q=1&b=2", "x = {'key': [1, 2]}"),
    *("Grüße, naïve café", "cafe\u0301 decomposed e\u0301", "Straße İstanbul ŀ ǆ"),
    *(
        "日本語の文章です。漢字",
        "中文 分词\uff0c测试\uff01",
        "한국어 텍스트",
        "العربية نص",
        "हिन्दी पाठ",
    ),
    *("ไทยไม่มีช่องว่าง", "emoji 🙂👍🏽 👨\u200d👩\u200d👧 🇩🇪", "no\u00a0break\u2003wide\u3000space"),
    *("zero\u200bwidth soft\u00adhyphen bom\ufeff", "wide \uff21\uff22\uff23 \uff11\uff12\uff13"),
    *("ﬁne ½ ² ™ … — “”", "math \U0001d54f\U0001d7d9 astral 𐍈", "1" * 50, "x" * 300),
)
_N_MIXED = 100


def convert_tokenizer(folder: Path) -> str:
    """Write the tokenizer.json of a folder, and compare its ids with the reference.

    Returns:
        The name of the new file.

    Raises:
        ModelUnavailable: it cannot be made, or gives other ids for some text.
    """
    for name in tokenizer_sources({path.name for path in folder.iterdir()}):
        if name.endswith(".model"):
            read_sentencepiece(folder / name)  # transformers would blame another library
    made = _load(folder)
    reference = _reference(folder, made)
    made.backend_tokenizer.save(str(folder / TOKENIZER))
    loaded = _load(folder)
    for text in (*_TEXTS, *_mixed()):
        ids = loaded(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids != reference(text):
            (folder / TOKENIZER).unlink()
            raise ModelUnavailable(
                f"{folder}: transformers' {type(loaded).__name__} gives {text[:40]!a} other "
                "ids than the tokenizer's own files; add the model's tokenizer.json"
            )
    return TOKENIZER


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with loading(str(folder)), reading(folder, "the tokenizer"), silent():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not tokenizer.is_fast:
            raise ValueError(f"transformers cannot convert {type(tokenizer).__name__}")
    return tokenizer


def _reference(folder: Path, tokenizer: Any) -> Ids:
    """Return the encoding by the files that the tokenizer was made of."""
    name = type(tokenizer).__name__
    vocabulary = folder / str(tokenizer.vocab_files_names.get("vocab_file", ""))
    if vocabulary.suffix == ".model" and vocabulary.is_file():
        return sentencepiece_ids(vocabulary, name)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return byte_level_ids(folder, name)
    raise ModelUnavailable(
        f"{folder}: {name} does not read the tokenizer's files that are there; add the model's "
        f"{TOKENIZER}"
    )


def _mixed() -> list[str]:
    """Return texts of parts of the others in any order, always the same ones."""
    draw = random.Random(0)
    parts = [part for text in _TEXTS for part in text[:60].split(" ")]
    return [" ".join(draw.choices(parts, k=draw.randint(2, 12))) for _ in range(_N_MIXED)]
