"""Load transformers' models without torch's compiler and its tensors of several machines.

transformers imports both for decorators and types that do nothing here: 400 modules, 0.7 s of CPU
and 35 MB of memory in every process.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_USED = "_trace_wrapped_higher_order_op"


@contextmanager
def lean_loading() -> Iterator[None]:
    """Keep both out of a loading model; code that uses the compiler still gets it."""
    if _COMPILER in sys.modules:
        yield
        return
    is_available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    _defer_compiler()
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        if isinstance(sys.modules.get(_COMPILER), _Deferred):
            _remove_compiler()


def _defer_compiler() -> None:
    deferred = sys.modules[_COMPILER] = torch.__dict__["_dynamo"] = _Deferred(_COMPILER)
    # transformers' masks use this small module of it, which can be imported alone.
    folder = Path(torch.__file__).parent / "_dynamo"
    deferred.__path__ = [str(folder)]
    # It registers an operator, for which torch looks for the module of this file among all.
    inspect.modulesbyfile[str(folder / f"{_USED}.py")] = f"{_COMPILER}.{_USED}"
    importlib.import_module(f"{_COMPILER}.{_USED}")
    del deferred.__path__


def _unmarked(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Return a function as it is; without one, a decorator that does."""
    return _unmarked if function is None else function


class _Deferred(ModuleType):
    """The compiler's decorators that only mark a function; any other name imports the compiler."""

    allow_in_graph = assume_constant_result = disable = staticmethod(_unmarked)

    def __getattr__(self, name: str) -> Any:
        # A module of the package is looked for in its path.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            _remove_compiler()
        return getattr(importlib.import_module(_COMPILER), name)


def _remove_compiler() -> None:
    del sys.modules[_COMPILER]
    torch.__dict__.pop("_dynamo", None)
