"""Refuse a model folder that is unsafe or cannot be loaded, without torch or the weights' data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.convertible import tokenizer_sources
from rankmill.models.folder_files import (
    check_modules,
    check_places,
    module_folders,
    read_json,
    setting_files,
)
from rankmill.models.own_code import check_own_code
from rankmill.models.weights import WEIGHTS, check_head, check_weight_names, read_tensors

# Each of these alone makes a tokenizer.
TOKENIZERS = ("tokenizer.json", "vocab.txt")

_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "num_key_value_heads", "head_dim"),
    *("d_model", "dim", "n_layers", "n_heads", "hidden_dim", "num_layers", "embedding_size"),
)
# The layerwise and the lightweight reranker of BAAI, in any of their classes.
_SCORES_BY_LAYER = ("LayerWise", "CostWise")
_MAX_SIZE = 100_000_000
_MAX_LAYERS = 10_000


def check_checkpoint(folder: Path, *, may_run_code: bool = False) -> None:
    """Refuse a folder that cannot be loaded, or whose files contradict one another.

    Raises:
        ModelUnavailable: naming the file and what is wrong with it.
    """
    try:
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder}: no such model folder")
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ModelUnavailable(f"{folder}: {error.strerror}") from error
    check_names(str(folder), names, runs_code=may_run_code)
    check_places(folder, with_code=may_run_code)
    config = read_json(folder / "config.json")
    for path in setting_files(folder):
        if path.suffix == ".json":
            read_json(path)
    _check_config(folder / "config.json", config)
    check_modules(folder)
    if may_run_code or config.get("model_type") == "new":
        check_own_code(folder, config)
    tensors = read_tensors(folder)
    runs_code = may_run_code and "auto_map" in config
    if not runs_code and not module_folders(folder):
        check_head(folder, config, tensors)


def check_names(where: str, names: set[str], *, runs_code: bool = False) -> None:
    """Refuse a folder or a repository by the names of its files.

    Args:
        where: the folder or the hub id.
        names: the files of the top folder.
        runs_code: whether the model's own code may run, which may read any tokenizer.

    Raises:
        ModelUnavailable: no config, tokenizer or weights, or only pickled or partial weights.
    """
    if "config.json" not in names:
        raise ModelUnavailable(f"{where}: no config.json; is this a Hugging Face model folder?")
    if "adapter_config.json" in names:
        raise ModelUnavailable(
            f"{where}: an adapter (adapter_config.json); merge it into its base model with "
            "merge_and_unload() and save that"
        )
    check_weight_names(where, names)
    if names & set(TOKENIZERS):
        return
    sources = tokenizer_sources(names)
    if not sources:
        missing = "; vocab.json is there, merges.txt is not" if "vocab.json" in names else ""
        raise ModelUnavailable(f"{where}: no tokenizer ({', '.join(TOKENIZERS)}){missing}")
    if not runs_code:
        raise ModelUnavailable(
            f"{where}: no tokenizer.json, but {' and '.join(sources)}; "
            f"`rankmill models convert {where}` makes one of it"
        )


def _check_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse values of config.json that transformers fails on without a clear message."""
    for name in _SIZES:
        value = config.get(name)
        if value is None:
            continue
        limit = _MAX_LAYERS if name in ("num_hidden_layers", "n_layers") else _MAX_SIZE
        if isinstance(value, (bool, str, float)) or (
            isinstance(value, int) and not 0 < value <= limit
        ):
            raise ModelUnavailable(f"{path}: {name} is {str(value)[:40]}, not a positive integer")
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise ModelUnavailable(f"{path}: architectures is not a list of names")
    by_layer = [name for name in architectures or [] if name.startswith(_SCORES_BY_LAYER)]
    if by_layer:
        raise ModelUnavailable(
            f"{path}: {by_layer[0]} scores after each of its layers (--cutoff-layers), which "
            "is not supported; use BAAI/bge-reranker-v2-gemma of the same team, or the smaller "
            "BAAI/bge-reranker-v2-m3"
        )
    if not isinstance(config.get("model_type", ""), str):
        raise ModelUnavailable(f"{path}: model_type is not a name")
    if config.get("transformers_weights") is not None:
        raise ModelUnavailable(
            f"{path}: transformers_weights names other weights than {WEIGHTS}; rename that file"
        )
    if config.get("quantization_config") is not None:
        raise ModelUnavailable(
            f"{path}: quantized weights (quantization_config); take the model in fp32, bf16 or "
            "fp16, and --precision int8 or fp8"
        )
