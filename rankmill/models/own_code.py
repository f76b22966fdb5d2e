"""The Python code that a model's `auto_map` names; it must lie in the model's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.folder_files import read_json


def check_own_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse code of another repository, which no pull fetches and no fingerprint covers.

    Raises:
        ModelUnavailable: naming that repository, or the file that is missing.
    """
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path) if path.is_file() else {}
    for reference in [*_class_names(folder, config), *_class_names(folder, tokenizer)]:
        repository, separator, _ = reference.partition("--")
        module = reference.partition(".")[0]
        if separator and config.get("model_type") == "new":
            raise ModelUnavailable(
                f"{folder}: its code lives in another repository, {repository}, which is not "
                "fetched; transformers' own gte takes these weights: in config.json, set "
                "model_type to gte and architectures to GteForSequenceClassification, and remove "
                "auto_map"
            )
        if separator:
            raise ModelUnavailable(
                f"{folder}: its code lives in another repository, {repository}, which is not "
                f"fetched; copy it into the folder and take {repository}-- out of auto_map"
            )
        if not (folder / f"{module}.py").is_file():
            raise ModelUnavailable(
                f"{folder}: no {module}.py, which auto_map names; fetch the model again"
            )


def _class_names(folder: Path, settings: dict[str, Any]) -> list[str]:
    auto_map = settings.get("auto_map") or {}
    values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    if any(name is not None and not isinstance(name, str) for name in names):
        raise ModelUnavailable(f"{folder}: auto_map holds other values than names")
    return [name for name in names if name]
