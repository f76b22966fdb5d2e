"""Pickled weights as safetensors: nothing but tensors is read, and no code of a pickle runs."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.folder_files import check_files, module_folders, read_json
from rankmill.models.weights import INDEX, PICKLED, PICKLED_INDEX, WEIGHTS

# torch's restricted unpickler names what a pickle wants beyond tensors.
_WANTED = re.compile(r"GLOBAL ([\w.]+)|Trying to (?:call|instantiate)|Unsupported class")


def convert_weights(folder: Path, target: Path, *, with_aliases: bool) -> list[str]:
    """Write the pickled weights of a folder as safetensors, and compare every tensor.

    A tensor that is stored under several names is written once, under its first name.

    Args:
        folder: the model's folder.
        target: the folder to write to, with the same subfolders.
        with_aliases: write each such tensor under all of its names.

    Returns:
        The names of the new files.

    Raises:
        ModelUnavailable: a pickle is damaged, or holds anything but tensors.
    """
    written = []
    for name in module_folders(folder):
        has_pickle = (folder / name / PICKLED).is_file()
        if has_pickle and not (folder / name / WEIGHTS).is_file():
            _convert(folder, f"{name}/{PICKLED}", target / name / WEIGHTS, with_aliases)
            written.append(f"{name}/{WEIGHTS}")
    if (folder / PICKLED).is_file():
        _convert(folder, PICKLED, target / WEIGHTS, with_aliases)
        written.append(WEIGHTS)
    elif (folder / PICKLED_INDEX).is_file():
        written += _convert_shards(folder, target, with_aliases)
    return written


def _convert_shards(folder: Path, target: Path, with_aliases: bool) -> list[str]:
    path = folder / PICKLED_INDEX
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnavailable(f"{path}: no weight_map")
    new_map: dict[str, str] = {}
    n_bytes = 0
    for shard in sorted({str(name) for name in weight_map.values()}):
        if "/" in shard or "\\" in shard or "\0" in shard or not shard.endswith(".bin"):
            raise ModelUnavailable(
                f"{path}: names {shard[:80]!r}; shards are *.bin in the model's folder"
            )
        name = shard.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"
        tensors, sizes = _convert(folder, shard, target / name, with_aliases)
        lost = [each for each, file in weight_map.items() if file == shard and each not in tensors]
        if lost:
            raise ModelUnavailable(
                f"{folder / shard}: lacks {', '.join(lost[:3])}, which {PICKLED_INDEX} names; "
                "fetch the model again"
            )
        new_map |= dict.fromkeys(sizes, name)
        n_bytes += sum(sizes.values())
    index = {"metadata": {"total_size": n_bytes}, "weight_map": dict(sorted(new_map.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return [*sorted(set(new_map.values())), INDEX]


def _convert(
    folder: Path, name: str, target: Path, with_aliases: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """Convert one file; return all of its tensors, and the bytes of those that were written."""
    from safetensors.torch import load_file, save_file

    tensors = read_pickled(folder / name, folder)
    first = {_place(tensor): each for each, tensor in reversed(tensors.items())}
    aliases = {
        each: first[_place(tensor)]
        for each, tensor in tensors.items()
        if first[_place(tensor)] != each and not with_aliases
    }
    kept = {
        each: tensor.detach().contiguous().clone()
        for each, tensor in tensors.items()
        if each not in aliases
    }
    target.parent.mkdir(exist_ok=True, parents=True)
    save_file(kept, target, metadata={"format": "pt"} | aliases)
    saved = load_file(target)
    for each, tensor in tensors.items():
        copy = saved[aliases.get(each, each)]
        if (copy.dtype, copy.shape) != (tensor.dtype, tensor.shape) or not _same(copy, tensor):
            raise ModelUnavailable(f"{folder / name}: {each} was not written as it is")
    return tensors, {each: tensor.nbytes for each, tensor in kept.items()}


def read_pickled(path: Path, folder: Path) -> dict[str, Any]:
    """Return the tensors of a pickle by name, in its order.

    Raises:
        ModelUnavailable: it wants to run code, is damaged, or holds other things than tensors.
    """
    import torch

    if not path.is_file():
        raise ModelUnavailable(f"{path}: missing, though {PICKLED_INDEX} names it")
    check_files([path], folder)
    try:
        is_zip = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise
    except Exception as error:  # of the unpickler or of the archive's reader, many kinds
        found = _WANTED.search(str(error))
        if found is not None:
            raise ModelUnavailable(
                f"{path}: holds {found[1] or 'an object'}, not tensors alone, and could run code; "
                "nothing of it was run"
            ) from error
        raise ModelUnavailable(
            f"{path}: not a file of weights of torch, or damaged ({type(error).__name__}); "
            "fetch it again"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ModelUnavailable(f"{path}: holds a {type(content).__name__}, not tensors by name")
    for name, tensor in content.items():
        is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if not isinstance(name, str) or not is_plain:
            raise ModelUnavailable(
                f"{path}: {str(name)[:80]!r} is a {type(tensor).__name__}, not a tensor; save "
                "model.state_dict() alone"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ModelUnavailable(f"{path}: {name} is not a plain tensor of numbers")
    return content


def _place(tensor: Any) -> tuple[object, ...]:
    """Return what two names share if they are one tensor; a tensor without data shares nothing."""
    if not tensor.numel():
        return (id(tensor),)
    shape, stride = tuple(tensor.shape), tensor.stride()
    return tensor.data_ptr(), tensor.dtype, shape, stride


def _same(copy: Any, tensor: Any) -> bool:
    """Return whether two tensors have the same bytes, which NaN have, too."""
    import torch

    return torch.equal(
        copy.contiguous().reshape(-1).view(torch.uint8),
        tensor.detach().contiguous().reshape(-1).view(torch.uint8),
    )
