"""Checkpoints as older repositories have them: pickled weights, SentencePiece, vocab and merges."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceTrainer

from tests.support.models.vocabularies import CORPUS, byte_bpe


def pickle_weights(folder: Path, n_shards: int = 1, *, legacy: bool = False) -> dict[str, Any]:
    """Replace model.safetensors by pickled files; return the tensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_pickled(folder, tensors, n_shards, legacy=legacy)
    return tensors


def save_pickled(
    folder: Path, tensors: dict[str, Any], n_shards: int = 1, *, legacy: bool = False
) -> None:
    if n_shards == 1:
        path = folder / "pytorch_model.bin"
        torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
        return
    names = list(tensors)
    weight_map = {}
    for number in range(n_shards):
        shard = f"pytorch_model-{number + 1:05}-of-{n_shards:05}.bin"
        held = {name: tensors[name] for name in names[number::n_shards]}
        torch.save(held, folder / shard)
        weight_map |= dict.fromkeys(held, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


class TouchesFile:
    """An object whose pickle creates a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._path}'",)


def sentencepiece_model(**options: Any) -> bytes:
    """Return a small model of SentencePiece with T5's special tokens, unless others are given."""
    written = io.BytesIO()
    t5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS, "true false yes no Query: Document: Relevant:"] * 3),
        model_writer=written,
        vocab_size=options.pop("vocab_size", 300),
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **(t5 | options),
    )
    return written.getvalue()


def without_tokenizer_json(folder: Path, **files: bytes | str) -> None:
    """Remove a folder's tokenizer and write other files; `__` in a name is a dot."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)


def write_byte_level(folder: Path, special: list[str]) -> None:
    """Write vocab.json and merges.txt."""
    byte_bpe(special, None).backend_tokenizer.model.save(str(folder))
