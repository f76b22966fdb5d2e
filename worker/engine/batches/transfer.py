"""Copy the arrays of a batch to a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def in_one_copy(tensors: Sequence[torch.Tensor], device: str) -> list[torch.Tensor]:
    """Copy 1-D tensors to a CUDA device by one transfer, which runs in the background.

    Its pinned memory is from torch's allocator, which reuses it after the transfer has ended.
    Tensors with larger numbers come first, so that each begins at a multiple of a number's size.
    """
    order = sorted(range(len(tensors)), key=lambda n: -tensors[n].element_size())
    parts = [tensors[n].view(torch.uint8) for n in order]
    sizes = [len(part) for part in parts]
    pinned = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    torch.cat(parts, out=pinned)
    pieces = torch.split(pinned.to(device, non_blocking=True), sizes)
    by_number = dict(zip(order, pieces, strict=True))
    return [by_number[n].view(tensor.dtype) for n, tensor in enumerate(tensors)]
