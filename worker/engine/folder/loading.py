"""Load a model's safetensors weights from its folder; never the network."""

from __future__ import annotations

from typing import Any

import torch

from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import reading
from worker.engine.folder.weights import load_weights_whole
from worker.engine.kernels.exact import with_exact_head


def load_weights(
    auto: Any, source: ModelFolder, dtype: torch.dtype, *, has_head: bool = True
) -> Any:
    """Return a model of transformers for inference: its body in `dtype`, its head in fp32.

    Args:
        auto: one of transformers' `AutoModel` classes.
        has_head: that class gives more than hidden states.

    Raises:
        UnusableFolder: the weights are not those that the config promises.
    """
    if has_head and dtype != torch.float32:
        with reading(source.path, "config.json"), torch.device("meta"):
            skeleton = auto.from_config(
                source.config, trust_remote_code=source.loading["trust_remote_code"]
            )
        auto = with_exact_head(skeleton)
    model = load_weights_whole(auto, source, dtype)
    model.config.use_cache = False
    return model
