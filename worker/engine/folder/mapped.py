"""Weights that stay in their files: mapped into memory, and read from disk when they are used."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import reading

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAPS = Path("/proc/self/maps")
_DONTNEED = 4  # MADV_DONTNEED of Linux


def stored_dtype(source: ModelFolder) -> torch.dtype | None:
    """Return the dtype of all weights of a folder; None if they have several or an unusual one.

    transformers maps the files of a model that it loads in this dtype; else it copies and casts.
    """
    dtypes = set()
    with reading(source.path, "the weights"):
        for path in _files(source):
            with safe_open(path, framework="pt") as file:
                dtypes |= {file.get_slice(name).get_dtype() for name in file.offset_keys()}
    floats = [dtype for dtype in dtypes if "F" in dtype]
    return _DTYPES.get(floats[0]) if len(floats) == 1 else None


def read_mapped(source: ModelFolder) -> dict[str, torch.Tensor]:
    """Return all tensors of a folder by name, mapped."""
    tensors: dict[str, torch.Tensor] = {}
    with reading(source.path, "the weights"):
        for path in _files(source):
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_slice(name)[...] for name in file.offset_keys()}
    return tensors


class MappedWeights:
    """The mapped files of a loaded model."""

    def __init__(self, source: ModelFolder, model: Any) -> None:
        self._files = [_File(path) for path in _files(source)]
        # These keep their mappings. Where another one ends, the place may go to something else.
        self._tensors = [parameter.detach() for parameter in model.parameters()]
        places = [tensor.data_ptr() for tensor in self._tensors]
        self._ranges = [
            (start, end)
            for start, end in _ranges({file.inode for file in self._files})
            if any(start <= place < end for place in places)
        ]

    def release(self) -> None:
        """Return the pages that were read to the system; a page is read again when it is used."""
        for start, end in self._ranges:
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED
            )

    def have_changed(self) -> bool:
        """Return whether a file was written to, which changes the weights in memory, too."""
        return any(file.has_changed() for file in self._files)


class _File:
    """An open file and its state when it was opened."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        self.inode = os.fstat(self._fd).st_ino
        self._state = self._now()

    def has_changed(self) -> bool:
        return self._now() != self._state

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._fd)
        return state.st_size, state.st_mtime_ns


def _files(source: ModelFolder) -> list[Path]:
    """Return the files that transformers reads."""
    whole = source.path / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = source.json("model.safetensors.index.json")
    return [source.path / name for name in sorted(set(index.get("weight_map", {}).values()))]


def _ranges(inodes: set[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last address of this process's mappings of some files."""
    if sys.platform != "linux":
        return
    for line in _MAPS.read_text().splitlines():
        addresses, _, _, _, inode, *path = line.split(maxsplit=5)
        if int(inode) in inodes and path and ".safetensors" in path[0]:
            start, _, end = addresses.partition("-")
            yield int(start, 16), int(end, 16)
