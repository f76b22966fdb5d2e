"""A tokenizer.json that is made has the ids of the files it was made of, or it is not made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from rankmill.errors import ModelUnavailable
from tests.support.models.pickles import sentencepiece_model, write_byte_level
from worker.conversion.vocabulary import convert_tokenizer

pytestmark = pytest.mark.slow

XLM_R = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
DEBERTA = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
DEBERTA_PIECES = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

TEXTS = [
    *("", "Development files", "  two\n lines\t", "日本語 Grüße naïve", "🙂 ½ \uff21\u00a0\u3000b"),
    "library " * 500,
]


def of_type(folder: Path, model_type: str, **settings: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("model_type", "name", "options", "moved"),
    [
        ("t5", "spiece.model", {}, lambda each: each),
        ("mt5", "spiece.model", {}, lambda each: each),
        (
            *("xlm-roberta", "sentencepiece.bpe.model", XLM_R),
            lambda each: each + 1 if each else 3,
        ),
        ("camembert", "sentencepiece.bpe.model", XLM_R, lambda each: each + 4 if each else 3),
    ],
)
def test_sentencepiece(
    model_type: str,
    name: str,
    options: dict[str, int],
    moved: Callable[[int], int],
    tmp_path: Path,
) -> None:
    folder = of_type(tmp_path / "model", model_type)
    (folder / name).write_bytes(sentencepiece_model(**options))
    assert convert_tokenizer(folder) == "tokenizer.json"
    (folder / name).rename(tmp_path / name)  # a load does not need it any more
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = SentencePieceProcessor(model_file=str(tmp_path / name))
    for text in TEXTS:
        expected = [moved(each) for each in processor.encode(text)]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected


@pytest.mark.parametrize(
    ("model_type", "special"),
    [("roberta", ROBERTA), ("gpt2", ["<|endoftext|>"]), ("qwen2", ["<|endoftext|>"])],
)
def test_vocab_and_merges(model_type: str, special: list[str], tmp_path: Path) -> None:
    folder = of_type(tmp_path / "model", model_type)
    write_byte_level(folder, special)
    before = AutoTokenizer.from_pretrained(folder)
    assert convert_tokenizer(folder) == "tokenizer.json"
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    after = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert after(text)["input_ids"] == before(text)["input_ids"]


def llama(folder: Path) -> None:
    options = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 400}
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(**options))


def truncated(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(sentencepiece_model()[:1000])


def other_merges(folder: Path) -> None:
    write_byte_level(folder, ROBERTA)
    (folder / "merges.txt").write_text("#version: 0.2\na b c\n")


def of_another_class(folder: Path) -> None:
    write_byte_level(folder, ["[PAD]"])


@pytest.mark.parametrize(
    ("model_type", "write", "message"),
    [
        ("llama", llama, "TokenizersBackend"),
        ("t5", truncated, "not a model of SentencePiece"),
        ("roberta", other_merges, "Merges text file invalid"),
        ("deberta", of_another_class, "DebertaTokenizer"),
        ("t5", lambda folder: write_byte_level(folder, ["<pad>"]), "T5Tokenizer"),
    ],
)
def test_what_has_no_equal_tokenizer_is_one_line_and_leaves_no_file(
    model_type: str, write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = of_type(tmp_path / "model", model_type)
    write(folder)
    with pytest.raises(ModelUnavailable, match=message) as refused:
        convert_tokenizer(folder)
    line = str(refused.value)
    assert str(folder) in line and "\n" not in line and len(line) < 600
    assert not (folder / "tokenizer.json").exists()


def test_ids_that_differ_for_one_kind_of_text_are_refused(tmp_path: Path) -> None:
    """transformers' DeBERTa leaves out the normalization of SentencePiece."""
    folder = of_type(tmp_path / "model", "deberta-v2")
    pieces = DEBERTA_PIECES | {"pad_piece": "[PAD]"}
    (folder / "spm.model").write_bytes(sentencepiece_model(**DEBERTA, **pieces))
    with pytest.raises(ModelUnavailable, match=r"DebertaV2Tokenizer gives .* other ids"):
        convert_tokenizer(folder)
