"""The Python code that a model's `auto_map` names; it must lie in the model's own folder.

A pull copies the code that another repository keeps into the folder, and takes the repository out
of `auto_map`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.folder_files import read_json

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_own_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse code that is not in the folder, which no fingerprint would cover.

    Raises:
        ModelUnavailable: naming that repository, or the file that is missing.
    """
    for reference in [name for path in _files(folder) for name in _class_names(folder, path)]:
        repository, separator, _ = reference.partition("--")
        module = reference.partition(".")[0]
        if separator and config.get("model_type") == "new":
            raise ModelUnavailable(
                f"{folder}: its code lives in another repository, {repository}; list the model in "
                "RANKMILL_REMOTE_CODE_MODELS and run `rankmill models pull` to fetch it, too; or "
                "let transformers' own gte take these weights: in config.json, set "
                "model_type to gte and architectures to GteForSequenceClassification, and remove "
                "auto_map"
            )
        if separator:
            raise ModelUnavailable(
                f"{folder}: its code lives in another repository, {repository}; `rankmill models "
                "pull` fetches it with the model where RANKMILL_REMOTE_CODE_MODELS lists that, or "
                f"copy it into the folder and take {repository}-- out of auto_map"
            )
        if not (folder / f"{module}.py").is_file():
            raise ModelUnavailable(
                f"{folder}: no {module}.py, which auto_map names; fetch the model again"
            )


def other_repositories(folder: Path) -> list[str]:
    """Return the repositories that keep code which the folder's settings name.

    Raises:
        ModelUnavailable: a name is not one of a hub's repositories.
    """
    names = [name for path in _files(folder) for name in _class_names(folder, path)]
    found = {name.partition("--")[0] for name in names if "--" in name}
    for repository in found:
        if not _REPOSITORY.fullmatch(repository):
            raise ModelUnavailable(
                f"{folder}: auto_map names code of {repository[:80]!r}, not a hub id (owner/name)"
            )
    return sorted(found)


def name_own_code(folder: Path) -> list[str]:
    """Take the repositories out of every `auto_map`; return the names of the files written."""
    written = []
    for path in _files(folder):
        settings = read_json(path)
        own = _without_repositories(settings.get("auto_map"))
        if own != settings.get("auto_map"):
            new = path.with_suffix(".new")
            new.write_text(json.dumps(settings | {"auto_map": own}, indent=2) + "\n")
            os.replace(new, path)
            written.append(path.name)
    return written


def _without_repositories(value: Any) -> Any:
    if isinstance(value, str):
        return value.rpartition("--")[2]
    if isinstance(value, list):
        return [_without_repositories(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_repositories(each) for key, each in value.items()}
    return value


def _files(folder: Path) -> list[Path]:
    """Return the files that may hold an `auto_map`."""
    paths = [folder / name for name in ("config.json", "tokenizer_config.json")]
    return [path for path in paths if path.is_file()]


def _class_names(folder: Path, path: Path) -> list[str]:
    auto_map = read_json(path).get("auto_map") or {}
    values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    if any(name is not None and not isinstance(name, str) for name in names):
        raise ModelUnavailable(f"{folder}: auto_map holds other values than names")
    return [name for name in names if name]
