"""Read the header of a safetensors file: names, types and shapes, without torch or the data."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable

# The format's own limit (safetensors, `MAX_HEADER_SIZE`).
_MAX_HEADER_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs"

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor's type, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; check its length against its header.

    Raises:
        ModelUnavailable: the file is cut short, damaged, or not safetensors.
    """
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ModelUnavailable(f"{path}: cut short, {n_bytes} bytes; fetch it again")
        if (start + file.read(32)).startswith(_LFS_POINTER):
            raise ModelUnavailable(f"{path}: a pointer of Git LFS, not the weights; git lfs pull")
        (n_header,) = struct.unpack("<Q", start)
        if n_header > _MAX_HEADER_BYTES:
            raise ModelUnavailable(f"{path}: not a safetensors file")
        if n_header > n_bytes - 8:
            raise ModelUnavailable(
                f"{path}: cut short, its header alone has {n_header} bytes and the file {n_bytes}; "
                "fetch it again"
            )
        file.seek(8)
        content = file.read(n_header)
    try:
        header = json.loads(content)
        if not isinstance(header, dict):
            raise TypeError
        header.pop("__metadata__", None)
        tensors, n_data = _tensors(header)
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError):
        raise ModelUnavailable(f"{path}: its header is damaged; fetch it again") from None
    if n_data != n_bytes - 8 - n_header:
        raise ModelUnavailable(
            f"{path}: cut short or damaged, {n_bytes - 8 - n_header} bytes of tensors instead of "
            f"{n_data}; fetch it again"
        )
    return tensors


def _tensors(header: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """Return the tensors and their bytes; their places in the file must leave no gap."""
    tensors, places = {}, []
    for name, entry in header.items():
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sizes = [*shape, begin, end]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError(name)
        if 8 * (end - begin) != _BITS[dtype] * prod(shape):
            raise ValueError(name)
        tensors[name] = Tensor(dtype, tuple(shape))
        places.append((begin, end))
    end_before = 0
    for begin, end in sorted(places):
        if begin != end_before:
            raise ValueError("gap")
        end_before = end
    return tensors, end_before
