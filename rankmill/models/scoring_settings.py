"""Read how a model folder says its pairs are scored: their length, and a causal model's prompt.

The engine reads the same with its libraries, which a producer does not have. A value that is only
a library's default is None here; the worker knows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.errors import InputError, ModelUnavailable
from rankmill.models.folder_files import MODULES, TEMPLATES, read_json

# Where Sentence Transformers keeps the settings of its Transformer module; the first counts.
_TRANSFORMER = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

# Their position embeddings start after the padding index, which is 1 if the config has none.
_OFFSET_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm"),
    *("data2vec-text", "ibert", "xmod"),
)


def check_max_length(max_length: int | None, model_id: str, folder: Path) -> None:
    """Refuse a length that the model cannot take.

    Raises:
        InputError: naming the flag, its value and the model's limit.
    """
    limit = length_limit(folder)
    if max_length is not None and limit is not None and max_length > limit:
        raise InputError(
            f"--max-length {max_length}: {model_id} takes at most {limit} tokens; give that or "
            "less, or leave it out"
        )


def length_limit(folder: Path) -> int | None:
    """Return the longest pair that the folder's files allow, in tokens; None if they set none.

    Sentence Transformers' own settings come first, in the order that it follows; then those of
    the tokenizer. The model's positions bound both.
    """
    config = read_json(folder / "config.json")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in _OFFSET_POSITIONS:
        padding = config.get("pad_token_id")
        positions -= (padding if isinstance(padding, int) else 1) + 1
    transformer = _transformer(folder) or {}
    processing = _part(transformer, "processing_kwargs")
    keys = ("chat_template", "text", "common")
    order = keys if _takes_messages(transformer) else ("common", "text")
    lengths = [
        *(_part(processing, key).get("max_length") for key in order),
        _part(transformer, "processor_kwargs").get("model_max_length"),
        _part(transformer, "tokenizer_args").get("model_max_length"),
        transformer.get("max_seq_length"),
        _object(folder, "tokenizer_config.json").get("model_max_length"),
    ]
    stated = next((length for length in lengths if length is not None), None)
    limits = [limit for limit in (positions, stated) if isinstance(limit, int | float)]
    return int(min(limits)) if limits and min(limits) < 2**31 - 1 else None


def check_causal(folder: Path) -> None:
    """Refuse a language model that does not say how it reranks.

    Raises:
        ModelUnavailable: it has neither a chat template nor a LogitScore module.
    """
    transformer = _transformer(folder)
    if transformer is None:
        architecture = str((read_json(folder / "config.json").get("architectures") or [""])[0])
        is_causal = architecture.endswith("ForCausalLM")
        has_prompt = any(
            (folder / name).exists() for name in ("chat_template.jinja", TEMPLATES)
        ) or _object(folder, "tokenizer_config.json").get("chat_template")
    else:
        is_causal = transformer.get("transformer_task") == "text-generation"
        has_prompt = len(read_json(folder / MODULES)) > 1 or _takes_messages(transformer)
    if is_causal and not has_prompt:
        raise ModelUnavailable(
            f"{folder}: a causal language model without a chat template and a LogitScore "
            "module, so that nothing says how it reranks; add a chat template that shows "
            "roles query and document, and a LogitScore module, to the folder"
        )


def _transformer(folder: Path) -> dict[str, Any] | None:
    """Return the Transformer module's settings; None if modules.json does not apply."""
    stated = _object(folder, "config_sentence_transformers.json")
    if not (folder / MODULES).is_file() or stated.get("model_type") != "CrossEncoder":
        return None  # Sentence Transformers ignores it then, too
    names = [f"sentence_{kind}_config.json" for kind in _TRANSFORMER]
    return _object(folder, next((n for n in names if (folder / n).is_file()), names[0]))


def _takes_messages(transformer: dict[str, Any]) -> bool:
    return _part(transformer, "modality_config").get("message") is not None


def _object(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / name) if (folder / name).is_file() else {}
    return content


def _part(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object in an object, or an empty one; the worker refuses any other by name."""
    part = settings.get(key)
    return part if isinstance(part, dict) else {}
