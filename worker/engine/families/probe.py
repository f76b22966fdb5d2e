"""Try a padded model on two short pairs, together and alone.

Its forward must run, must not read padding, and must score a pair alike in both batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.device.cudnn import without_cudnn
from worker.engine.device.faults import fault_of, first_line
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.kernels.layers import Forward

_PAIRS = (("a a a a", "a a a"), ("a", "a"))

# Masked tokens have no weight at all, so that no bit of a logit may depend on them.
_SEEN = 1e-6

# A pair by itself has sums in another order, which matters more in 16 bits.
_NEAR, _NEAR_IN_16_BITS = 1e-3, 0.1


@torch.inference_mode()
@without_cudnn()
def check_forward(
    source: ModelFolder, model: Any, forward: Forward, *, device: str, precision: str, left: bool
) -> None:
    """Refuse a model whose forward fails or whose scores depend on the batch of a pair.

    Raises:
        UnusableFolder: naming the reason.
        RuntimeError: the device has failed or is full.
    """
    name = type(model).__name__
    try:
        window = _two_pairs(source)
        batch = TokenBatch.of(window, np.arange(2)).to(device)
        logits = forward.forward(batch)
        alone = [
            forward.forward(TokenBatch.of(window, np.array([place])).to(device))
            for place in range(2)
        ]
        hook = model.get_input_embeddings().register_forward_hook(_noise(batch, left))
        try:
            noisy = forward.forward(batch)
        finally:
            hook.remove()
    except Exception as error:
        if isinstance(error, UnusableFolder | MemoryError) or fault_of(error) is not None:
            raise
        advice = "" if precision == "fp32" else "; try --precision fp32"
        raise UnusableFolder(
            f"{source.path}: {name} cannot score pairs in {precision} "
            f"({type(error).__name__}: {first_line(error)}){advice}"
        ) from error
    if ((logits - noisy).abs() > _SEEN * logits.abs().clamp_min(1)).any():
        raise UnusableFolder(
            f"{source.path}: {name} reads the padding of its batches, so that a pair's score "
            "would depend on the pairs that it is scored with; it is not supported"
        )
    advice = '; in config.json, "is_causal": false has both directions in every batch'
    near = _NEAR if precision == "fp32" else _NEAR_IN_16_BITS
    if ((logits - torch.cat(alone)).abs() > near * logits.abs().clamp_min(1)).any():
        raise UnusableFolder(
            f"{source.path}: {name} scores a pair by itself otherwise than next to a shorter one, "
            "so that its score would depend on its batch; it is not supported"
            + (advice if getattr(source.config, "use_bidirectional_attention", False) else "")
        )


def _two_pairs(source: ModelFolder) -> EncodedWindow:
    encoded = [source.tokenizer(*pair) for pair in _PAIRS]
    rows = [pair["input_ids"] for pair in encoded]
    types = [pair.get("token_type_ids") for pair in encoded]
    lengths = row_lengths(rows)
    n_tokens = int(lengths.sum())
    return EncodedWindow(
        ids=flatten(rows, n_tokens, np.int32),
        types=None if None in types else flatten(types, n_tokens, np.uint8),
        lengths=lengths,
        truncated=np.zeros(2, dtype=bool),
        pair_of_row=np.arange(2),
    )


def _noise(batch: TokenBatch, left: bool) -> Callable[..., torch.Tensor]:
    """Return a hook that adds noise to the embeddings of the second pair's padding."""
    longest, shorter = (group.length for group in batch.groups)
    padding = slice(0, longest - shorter) if left else slice(shorter, longest)

    def add(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        if not isinstance(embedded, torch.Tensor) or embedded.shape[:2] != (2, longest):
            return embedded
        noisy = embedded.clone()
        n_numbers = embedded.shape[-1]
        noisy[1, padding] += torch.linspace(-1, 1, n_numbers, device=noisy.device).to(noisy.dtype)
        return noisy

    return add
