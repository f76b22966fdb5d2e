"""The files of a model folder that a load opens: plain files that lie in the folder itself."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.storage.allowed import is_under

MODULES = "modules.json"
TEMPLATES = "additional_chat_templates"

# Weights that cannot run code, and the files that say how to use them.
SAFE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
CODE = "*.py"

_MAX_JSON_BYTES = 32_000_000
_MAX_TOKENIZER_BYTES = 512_000_000
_VOCABULARIES = ("tokenizer.json", "vocab.json")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; all but modules.json hold an object.

    The large files of a vocabulary are not read here: they give an empty object.

    Raises:
        ModelUnavailable: it cannot be read, is too large or is not JSON.
    """
    is_vocabulary = path.name in _VOCABULARIES
    limit = _MAX_TOKENIZER_BYTES if is_vocabulary else _MAX_JSON_BYTES
    try:
        n_bytes = path.stat().st_size
        if n_bytes > limit:
            raise ModelUnavailable(f"{path}: {n_bytes} bytes, more than {limit}")
        if is_vocabulary:
            return {}  # the tokenizer's library reads it
        content = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise ModelUnavailable(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ModelUnavailable(f"{path}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        what = f"not JSON: {error}" if path.stat().st_size else "empty"
        raise ModelUnavailable(f"{path}: {what}") from None
    if path.name != MODULES and not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelUnavailable(f"{path}: holds a JSON {kind} instead of an object")
    return content


def setting_files(folder: Path, *, with_code: bool = False) -> list[Path]:
    """Return the files besides weights that decide a score.

    They are configuration, tokenizer, templates, modules and, with `with_code`, Python code.
    """
    matching = [path for pattern in SAFE_FILES[1:] for path in folder.glob(pattern)]
    top = sorted(path for path in matching if path.is_file())
    below = [
        path
        for name in [*module_folders(folder), TEMPLATES]
        for pattern in SAFE_FILES[1:]
        for path in sorted((folder / name).glob(pattern))
        if path.is_file()
    ]
    code = sorted(folder.rglob(CODE)) if with_code else []
    return [*top, *below, *code]


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders that modules.json names.

    Raises:
        ModelUnavailable: it is not a list of modules, or a path leads out of the folder.
    """
    file = folder / MODULES
    if not file.is_file():
        return []
    modules = read_json(file)
    is_list = isinstance(modules, list) and modules
    if not is_list or not all(isinstance(module, dict) for module in modules):
        raise ModelUnavailable(f"{file}: not a list of modules")
    paths = []
    for module in modules:
        kind, path = module.get("type"), module.get("path", "")
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelUnavailable(f"{file}: a module without a type or a path")
        parts = PurePosixPath(path).parts
        if path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
            raise ModelUnavailable(f"{file}: the module path {path!r} leads out of the folder")
        if parts:
            paths.append("/".join(parts))
    return paths


def check_modules(folder: Path) -> None:
    """Refuse a folder that lacks the config.json of a module.

    Raises:
        ModelUnavailable: naming the module's folder.
    """
    names = module_folders(folder)
    modules = read_json(folder / MODULES) if names else []
    # Normalize has no settings, and older versions wrote no file for it.
    silent = {module.get("path") for module in modules if module["type"].endswith(".Normalize")}
    for name in names:
        if name not in silent and not (folder / name / "config.json").is_file():
            raise ModelUnavailable(
                f"{folder / name}: no config.json, though {MODULES} names this module; "
                "fetch the model again, with its subfolders"
            )


def check_places(folder: Path, *, with_code: bool) -> None:
    """Refuse anything but plain files in the folder: pipes and links out are never opened.

    Raises:
        ModelUnavailable: naming the file.
    """
    patterns = (*SAFE_FILES, CODE) if with_code else SAFE_FILES
    top = [path for pattern in patterns for path in folder.glob(pattern)]
    check_files(top, folder)  # modules.json, which the next line opens, is one of them
    below = [folder / name for name in (*module_folders(folder), TEMPLATES)]
    check_files([path for sub in below for name in patterns for path in sub.glob(name)], folder)
    if with_code:
        check_files(list(folder.rglob(CODE)), folder)


def check_files(paths: list[Path], folder: Path) -> None:
    """Refuse paths that are not readable plain files in the folder.

    Raises:
        ModelUnavailable: naming the first one.
    """
    root = os.path.realpath(folder)
    roots = [root]
    parent = Path(root).parent
    if parent.name == "snapshots":  # the hub client's cache links to its model's blobs
        roots.append(str(parent.parent / "blobs"))
    for path in sorted(paths):
        try:
            real = os.path.realpath(path, strict=True)
            is_file = stat.S_ISREG(os.stat(real).st_mode)
        except FileNotFoundError:
            raise ModelUnavailable(f"{path}: a link to nothing") from None
        except OSError as error:
            raise ModelUnavailable(f"{path}: {error.strerror}") from error
        if not any(is_under(real, allowed) for allowed in roots):
            raise ModelUnavailable(
                f"{path}: a link out of the model's folder; put the file itself there"
            )
        if not is_file:
            raise ModelUnavailable(f"{path}: not a file")
        if not os.access(real, os.R_OK):
            raise ModelUnavailable(f"{path}: Permission denied")
