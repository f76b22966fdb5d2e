"""Put on a worker's PYTHONPATH, this makes chosen texts kill the process that scores them.

A stand-in for what really does (a tokenizer that crashes, a row that takes all memory): the model
gets the text and the process is gone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from types import ModuleType
from typing import Any

_DEADLY = os.environ.get("RANKMILL_TEST_DEADLY_TEXT")


class _KillingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: Any) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        score = module.Scorer.score

        def score_or_die(self: Any, windows: Any) -> Any:
            def watched() -> Any:
                for window in windows:
                    if any(_DEADLY in text for text in window.documents):
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield window

            return score(self, watched())

        module.Scorer.score = score_or_die


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "worker.engine.scorer":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _KillingLoader(spec.loader)
        return spec


if _DEADLY:
    sys.meta_path.insert(0, _Finder())
