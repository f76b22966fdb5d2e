"""Keep a model on its device, loaded once for all scorers over it."""

from __future__ import annotations

import weakref
from functools import cached_property

from worker.engine.families.loader import LoadedModel, load_model
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.kernels.layers import Forward
from worker.engine.kernels.precision import Resolved


class ResidentModel:
    """The weights of a folder on a device; nothing is loaded before it is needed."""

    def __init__(self, source: ModelFolder, *, device: str, precision: Resolved) -> None:
        self.source = source
        self.device = device
        self.precision = precision
        self._exact: weakref.ref[Forward] | None = None

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model in its precision, as `load_model` returns it."""
        return load_model(self.source, device=self.device, precision=self.precision)

    def exact(self) -> Forward:
        """Return the model in fp32, which takes memory until its last user has gone."""
        forward = self._exact() if self._exact is not None else None
        if forward is None:
            forward = (self.loaded.exact or self._load_exact)()
            self._exact = weakref.ref(forward)
        return forward

    def _load_exact(self) -> Forward:
        return load_model(self.source, device=self.device, precision="fp32").forward
