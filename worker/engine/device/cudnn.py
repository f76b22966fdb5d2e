"""Keep cuDNN out of forwards: images may leave it out, and scores must not depend on the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Let torch's own CUDA kernels compute convolutions, RNNs and attention.

    It also decorates functions. Outside of it, the process has its cuDNN as before.
    """
    is_enabled = torch.backends.cudnn.enabled
    cuda: Any = torch.backends.cuda  # not all of it has types
    has_attention = cuda.cudnn_sdp_enabled()
    torch.backends.cudnn.enabled = False
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = is_enabled
        cuda.enable_cudnn_sdp(has_attention)
