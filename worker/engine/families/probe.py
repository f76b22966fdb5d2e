"""Try a padded model on two short pairs: its forward must run and must not read padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worker.engine.batches.batching import TokenBatch
from worker.engine.batches.pairs import EncodedWindow
from worker.engine.batches.ragged import flatten, row_lengths
from worker.engine.device.faults import fault_of, first_line
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.kernels.layers import Forward

_PAIRS = (("a a a a", "a a a"), ("a", "a"))

# Masked tokens have no weight at all, so that no bit of a logit may depend on them.
_SEEN = 1e-6


@torch.inference_mode()
def check_forward(
    source: ModelFolder, model: Any, forward: Forward, *, device: str, precision: str, left: bool
) -> None:
    """Refuse a model whose forward fails or whose scores depend on a batch's padding.

    Raises:
        UnusableFolder: naming the reason.
        RuntimeError: the device has failed or is full.
    """
    name = type(model).__name__
    try:
        batch = _two_pairs(source).to(device)
        logits = forward.forward(batch)
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


def _two_pairs(source: ModelFolder) -> TokenBatch:
    encoded = [source.tokenizer(*pair) for pair in _PAIRS]
    rows = [pair["input_ids"] for pair in encoded]
    types = [pair.get("token_type_ids") for pair in encoded]
    lengths = row_lengths(rows)
    n_tokens = int(lengths.sum())
    window = EncodedWindow(
        ids=flatten(rows, n_tokens, np.int32),
        types=None if None in types else flatten(types, n_tokens, np.uint8),
        lengths=lengths,
        truncated=np.zeros(2, dtype=bool),
        pair_of_row=np.arange(2),
    )
    return TokenBatch.of(window, np.arange(2))


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
