"""A forward in fp32 next to a reduced precision holds one layer at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.support.models.checkpoints import modernbert
from tests.support.models.windows import mixed_window
from tests.support.models.zoo import FAMILIES
from worker.engine.batches.batching import TokenBatch
from worker.engine.encoding.encoder import encoder_for
from worker.engine.families.family import Family, Kernels
from worker.engine.families.registry import family_of
from worker.engine.families.stack import L, Stack, Stacks
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.kernels.attention import GroupedAttention
from worker.engine.kernels.causal_attention import GroupedCausalAttention
from worker.engine.kernels.precision import numerics


@pytest.mark.parametrize("make", [FAMILIES["electra"], FAMILIES["gte"], modernbert])
def test_a_passing_layer_is_freed_before_the_next_one_is_built(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = ModelFolder(make(tmp_path / "model"))
    model = AutoModelForSequenceClassification.from_pretrained(source.path, dtype=torch.float32)
    built: list[weakref.ref[Any]] = []
    n_alive: list[int] = []

    def stack(modules: Sequence[Any], build: Callable[[Any], L]) -> Stack[L]:
        def counted(module: Any) -> L:
            n_alive.append(sum(layer() is not None for layer in built))
            layer = build(module)
            built.append(weakref.ref(layer))
            return layer

        return Stacks(None).passing(modules, counted)

    family, how = family_of(source.config), numerics("fp32")
    assert isinstance(family, Family)
    kernels = Kernels(how.dtype, how.linear, GroupedAttention(), GroupedCausalAttention(), stack)
    forward = family.forward(model.eval().base_model, family.own_head(model), kernels)
    window = encoder_for(source, max_length=64).encode(mixed_window())
    with torch.inference_mode():
        forward.forward(TokenBatch.of(window, np.arange(4)))
    assert n_alive == [0] * model.config.num_hidden_layers
