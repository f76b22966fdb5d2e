"""Load the compiled kernels, and call them with torch's own threads."""

from __future__ import annotations

import ctypes
import logging
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from worker.engine.compiled.build import library_name

_logger = logging.getLogger(__name__)

_FP32, _BF16, _INT8 = 1, 2, 4
_OUTSIDE = 2  # what a kernel returns
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
_ARGUMENTS = {
    "rankmill_attend": [_POINTER] * 3 + [_INT] * 7 + [_FLOAT, _INT, _POINTER],
    "rankmill_int8_linear": [_POINTER] * 6 + [_INT] * 6 + [_POINTER],
    "rankmill_linear": [_POINTER] * 5 + [_INT] * 7 + [_POINTER],
    "rankmill_norm": [_POINTER, _INT]
    + [_POINTER] * 4
    + [_INT] * 2
    + [_FLOAT, _INT, _INT, _POINTER],
    "rankmill_rotate": [_POINTER] * 3 + [_INT] * 6 + [_POINTER],
}


class Library:
    """The kernels that this CPU can run.

    Attributes:
        name: has a digest of the library's sources.
        has_int8: whether the linear layers in int8 can run.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        supported = self._library.rankmill_supported()
        self._dtypes = {torch.float32: supported & _FP32, torch.bfloat16: supported & _BF16}
        self.name = path.stem
        self.has_int8 = bool(supported & _INT8)
        for name, arguments in _ARGUMENTS.items() if supported else ():
            getattr(self._library, name).argtypes = arguments
        # A second OpenMP library would have threads of its own, which wait for work on all cores.
        parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
        self._parallel = ctypes.cast(parallel, _POINTER) if parallel else None

    def has(self, dtype: torch.dtype) -> bool:
        """Return whether the kernels can run in this dtype."""
        return bool(self._dtypes.get(dtype, 0))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a kernel on tensors and numbers.

        Tensors are contiguous and on the CPU; the caller checks shapes.

        Raises:
            RuntimeError: there is no memory, in the words of torch's own allocator.
            IndexError: an index is outside its table.
        """
        values = [one.data_ptr() if isinstance(one, torch.Tensor) else one for one in arguments]
        failed = getattr(self._library, name)(*values, torch.get_num_threads(), self._parallel)
        if failed == _OUTSIDE:
            raise IndexError(f"{name}: an index is outside its table")
        if failed:
            raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory for {name}")


_LONG = ctypes.c_int64
_OF_TEXTS: dict[str, tuple[Any, list[Any]]] = {
    "rankmill_words_new": (_POINTER, []),
    "rankmill_words_free": (None, [_POINTER]),
    "rankmill_words_split": (_LONG, [_POINTER, _POINTER, _POINTER, _LONG, _POINTER, _POINTER]),
    "rankmill_words_size": (None, [_POINTER, _POINTER]),
    "rankmill_words_unknown": (_POINTER, [_POINTER, _POINTER]),
    "rankmill_words_define": (_INT, [_POINTER, _POINTER, _POINTER, _LONG]),
    "rankmill_words_count": (_LONG, [_POINTER, _POINTER, _POINTER, _LONG, _POINTER]),
    "rankmill_words_write": (None, [_POINTER, _POINTER, _LONG, _POINTER]),
    "rankmill_distinct_texts": (_LONG, [_POINTER, _POINTER, _LONG, _POINTER, _POINTER]),
}


@lru_cache(maxsize=1)
def text_library(folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Return the functions of words.c, which run on any CPU; None if they are not compiled."""
    try:
        loaded = ctypes.CDLL(str(folder / library_name()))
    except OSError:
        return None
    for name, (result, arguments) in _OF_TEXTS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@lru_cache(maxsize=1)
def library(folder: Path = Path(__file__).parent) -> Library | None:
    """Return the compiled kernels; None if this CPU or this installation has none."""
    path = folder / library_name()
    if not path.exists():
        if platform.machine() == "x86_64" and platform.system() == "Linux":
            _warn("not built, so install a C compiler, then Rankmill again")
        return None
    try:
        loaded = Library(path)
    except OSError as error:
        _warn(str(error))
        return None
    return loaded if loaded.has(torch.float32) else None


def _warn(reason: str) -> None:
    _logger.warning("compiled kernels missing, scoring is slower: %s", reason)
