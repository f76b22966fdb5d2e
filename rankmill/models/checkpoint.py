"""The files of a model folder: which ones a load opens, and that each lies in the folder.

Nothing here needs torch. `check_checkpoint` refuses what can be seen without reading the weights.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.safetensors_header import Tensor, read_header
from rankmill.storage.allowed import is_under

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
TEMPLATES = "additional_chat_templates"

# Weights that cannot run code, and the files that say how to use them.
SAFE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
CODE = "*.py"

# Each of these alone makes a tokenizer, the last two with merges.txt.
TOKENIZERS = (
    *("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "tokenizer.model", "spm.model"),
    *("spiece.model", "vocab.json"),
)

_MAX_JSON_BYTES = 32_000_000
_MAX_TOKENIZER_BYTES = 512_000_000
_VOCABULARIES = ("tokenizer.json", "vocab.json")

_FLOATS = ("F64", "F32", "F16", "BF16")

# Where transformers keeps the last layer of a `*ForSequenceClassification`.
_HEADS = {"classifier", "score", "classification_head", "logits_proj", "sequence_summary"}
# Files of torch's distributed checkpoints, which transformers prefers to model.safetensors.
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")

_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "num_key_value_heads", "head_dim"),
    *("d_model", "dim", "n_layers", "n_heads", "hidden_dim", "num_layers", "embedding_size"),
)
_MAX_SIZE = 100_000_000
_MAX_LAYERS = 10_000


def check_checkpoint(folder: Path, *, may_run_code: bool = False) -> None:
    """Refuse a folder that cannot be loaded, or not as what its files say.

    Raises:
        ModelUnavailable: naming the file and what is wrong with it.
    """
    names = _names(folder)
    check_names(str(folder), names)
    _check_places(folder, may_run_code)
    config = read_json(folder / "config.json")
    for path in setting_files(folder):
        if path.suffix == ".json":
            read_json(path)
    _check_config(folder / "config.json", config)
    _check_modules(folder)
    runs_code = may_run_code and "auto_map" in config
    _check_code(folder, config, may_run_code)
    tensors = _tensors(folder)
    if not runs_code and not list(module_folders(folder)):
        _check_head(folder, config, tensors)


def check_names(where: str, names: set[str]) -> None:
    """Refuse by the names of the files in a folder or a repository.

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
    if any(_DISTRIBUTED.fullmatch(name) for name in names):
        raise ModelUnavailable(
            f"{where}: a distributed checkpoint; save it with model.save_pretrained(folder)"
        )
    if not names & {WEIGHTS, INDEX}:
        _refuse_weights(where, names)
    if not names & set(TOKENIZERS):
        raise ModelUnavailable(f"{where}: no tokenizer ({', '.join(TOKENIZERS)})")
    if names & set(TOKENIZERS) == {"vocab.json"} and "merges.txt" not in names:
        raise ModelUnavailable(f"{where}: no tokenizer: vocab.json is there, merges.txt is not")


def _refuse_weights(where: str, names: set[str]) -> None:
    pickled = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
    if pickled:
        raise ModelUnavailable(
            f"{where}: only pickled weights ({', '.join(pickled[:3])}), which can run code; "
            "convert them with model.save_pretrained(folder)"
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        raise ModelUnavailable(
            f"{where}: weights under other names ({', '.join(others[:3])}) and no {INDEX}; "
            f"transformers loads {WEIGHTS} or the files that {INDEX} names"
        )
    raise ModelUnavailable(f"{where}: no weights (*.safetensors)")


def weight_files(folder: Path) -> list[Path]:
    """The weights that a load reads: one file, or the index's shards, and those of the modules.

    Raises:
        ModelUnavailable: the index or modules.json names a file that may not be opened.
    """
    is_one_file = _is_in(folder, WEIGHTS)
    names = [WEIGHTS] if is_one_file else sorted(set(_weight_map(folder).values()))
    modules = [f"{path}/{WEIGHTS}" for path in module_folders(folder)]
    return [folder / name for name in names] + [
        folder / name for name in modules if _is_in(folder, name)
    ]


def setting_files(folder: Path, *, with_code: bool = False) -> list[Path]:
    """The other files that decide a score: configuration, tokenizer, templates, modules, code."""
    found = [path for pattern in SAFE_FILES[1:] for path in folder.glob(pattern)]
    top = sorted(path for path in found if path.is_file())
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
    """The subfolders that modules.json names.

    Raises:
        ModelUnavailable: it is not a list of modules, or a path leads out of the folder.
    """
    path = folder / MODULES
    return module_paths(read_json(path), str(path)) if path.is_file() else []


def module_paths(modules: Any, where: str) -> list[str]:
    """The subfolders of a parsed modules.json; raises as `module_folders`."""
    is_list = isinstance(modules, list) and modules
    if not is_list or not all(isinstance(each, dict) for each in modules):
        raise ModelUnavailable(f"{where}: not a list of modules")
    paths = []
    for module in modules:
        kind, path = module.get("type"), module.get("path", "")
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelUnavailable(f"{where}: a module without a type or a path")
        parts = PurePosixPath(path).parts
        if path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
            raise ModelUnavailable(f"{where}: the module path {path!r} leads out of the folder")
        if parts:
            paths.append("/".join(parts))
    return paths


def read_json(path: Path) -> Any:
    """The content of a JSON file; all but modules.json hold an object.

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
            return {}  # large; the tokenizer's library reads it
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


def _names(folder: Path) -> set[str]:
    try:
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder}: no such model folder")
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ModelUnavailable(f"{folder}: {error.strerror}") from error


def _check_places(folder: Path, may_run_code: bool) -> None:
    """Refuse what is not a plain file in the folder; pipes and links out are never opened."""
    patterns = (*SAFE_FILES, CODE) if may_run_code else SAFE_FILES
    _check_files([path for each in patterns for path in folder.glob(each)], folder)
    below = [folder / name for name in (*module_folders(folder), TEMPLATES)]
    _check_files([path for sub in below for each in patterns for path in sub.glob(each)], folder)
    if may_run_code:
        _check_files(folder.rglob(CODE), folder)


def _check_files(paths: Iterable[Path], folder: Path) -> None:
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
        if not any(is_under(real, each) for each in roots):
            raise ModelUnavailable(
                f"{path}: a link out of the model's folder; put the file itself there"
            )
        if not is_file:
            raise ModelUnavailable(f"{path}: not a file")
        if not os.access(real, os.R_OK):
            raise ModelUnavailable(f"{path}: Permission denied")


def _check_config(path: Path, config: dict[str, Any]) -> None:
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


def _check_modules(folder: Path) -> None:
    names = module_folders(folder)
    modules = read_json(folder / MODULES) if names else []
    # Normalize has nothing to state, and older versions wrote no file for it.
    silent = {each.get("path") for each in modules if each["type"].endswith(".Normalize")}
    for name in names:
        if name not in silent and not _is_in(folder, f"{name}/config.json"):
            raise ModelUnavailable(
                f"{folder / name}: no config.json, though {MODULES} names this module; "
                "fetch the model again, with its subfolders"
            )


def _check_code(folder: Path, config: dict[str, Any], may_run_code: bool) -> None:
    """Refuse code of another repository, which no pull fetches and no fingerprint covers."""
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path) if path.is_file() else {}
    needs_code = may_run_code or config.get("model_type") == "new"
    for reference in _code_references(folder, config, tokenizer) if needs_code else ():
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


def _code_references(folder: Path, *settings: dict[str, Any]) -> Iterable[str]:
    """The classes that the auto_map of a config or a tokenizer names."""
    for each in settings:
        auto_map = each.get("auto_map") or {}
        values = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
        for value in values:
            for reference in value if isinstance(value, list) else [value]:
                if reference is not None and not isinstance(reference, str):
                    raise ModelUnavailable(f"{folder}: auto_map holds other things than names")
                if reference:
                    yield reference


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the weights, each in the file that the index says."""
    tensors: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    for path in weight_files(folder):
        found = read_header(path)
        odd = [name for name, each in found.items() if _is_quantized(name, each)]
        if odd:
            raise ModelUnavailable(
                f"{path}: {odd[0]} is {found[odd[0]].dtype}, quantized weights; take the model "
                "in fp32, bf16 or fp16"
            )
        if path.parent == folder:
            tensors |= found
            where |= dict.fromkeys(found, path.name)
    if not (folder / WEIGHTS).is_file():
        lost = [name for name, file in _weight_map(folder).items() if where.get(name) != file]
        if lost:
            raise ModelUnavailable(
                f"{folder / INDEX}: names {len(lost)} tensors that their files do not have: "
                f"{', '.join(lost[:3])}; fetch the model again"
            )
    if not tensors:
        raise ModelUnavailable(f"{folder}: the weights hold no tensor")
    return tensors


def _is_quantized(name: str, tensor: Tensor) -> bool:
    return tensor.dtype not in _FLOATS and name.endswith(("weight", "bias"))


def _check_head(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse an embedding model or another task's, by its config and its tensors."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith("ForCausalLM"):
        return
    if "For" in architecture and not architecture.endswith("ForSequenceClassification"):
        raise ModelUnavailable(
            f"{folder}: a {architecture}; a reranker is a *ForSequenceClassification or a "
            "*ForCausalLM"
        )
    if not any(_HEADS & set(name.split(".")) for name in tensors):
        raise ModelUnavailable(
            f"{folder}: the weights have no classification head (classifier.* or score.*), so that "
            "its scores would be random; this is an embedding model or a backbone: name a "
            "reranker, such as BAAI/bge-reranker-v2-m3"
        )


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor to file, as the index says; each a safetensors file in the folder itself."""
    path = folder / INDEX
    index = read_json(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnavailable(f"{path}: no weight_map")
    if not isinstance(index.get("metadata"), dict):
        raise ModelUnavailable(f"{path}: no metadata")
    for name in sorted({str(name) for name in weight_map.values()}):
        if "/" in name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelUnavailable(
                f"{path}: names {name[:80]!r}; shards are *.safetensors in the model's folder"
            )
        if not _is_in(folder, name):
            raise ModelUnavailable(f"{folder / name}: missing, though {INDEX} names it")
    return weight_map


def _is_in(folder: Path, name: str) -> bool:
    return (folder / name).is_file()
