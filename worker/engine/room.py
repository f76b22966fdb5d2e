"""How much memory a device has for us, and how long to wait for more of it."""

from __future__ import annotations

import os
import re

import torch

# Between tries of what should fit: another process may fill the card for a while.
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)

# What a CUDA context takes besides torch's own memory, and a card's desktop.
_OTHERS_BYTES = 2 * 2**30

_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_ASKED = re.compile(r"tried to allocate ([0-9.]+) ?(bytes|[kmgt]ib)", re.IGNORECASE)


def asks_too_much(message: str, device: str) -> bool:
    """Whether one allocation that failed is more than the device could ever give."""
    asked = _ASKED.search(message)
    if asked is None:
        return False
    return float(asked[1]) * _UNITS[asked[2].lower()] > _capacity(device)


def is_ours_alone(device: str) -> bool:
    """Whether nobody else fills much of the device's memory, as far as one can know."""
    if torch.device(device).type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return others <= max(_OTHERS_BYTES, total // 10)


def release(device: str) -> None:
    """Give memory back that nothing uses; not while an exception holds what filled it."""
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def _capacity(device: str) -> int:
    """Bytes there are for activations: all but what the weights hold."""
    if torch.device(device).type != "cuda":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(torch.cuda.mem_get_info(device)[1]) - int(torch.cuda.memory_allocated(device))
