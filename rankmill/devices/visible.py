"""The devices that CUDA_VISIBLE_DEVICES leaves to a process, MIG slices included."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rankmill.devices.nvml import Card

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_names(value: str | None) -> list[str] | None:
    """Return the devices that CUDA_VISIBLE_DEVICES names, read as CUDA reads it; None for all.

    CUDA stops at the first unknown name, and sees nothing if a device is named twice
    (CUDA C++ Programming Guide, "CUDA Environment Variables"; `_parse_visible_devices` of
    torch/cuda/__init__.py).
    """
    if value is None:
        return None
    first = value.strip()[:4]
    names: list[str] = []
    for name in (part.strip() for part in value.split(",")):
        if first in ("GPU-", "MIG-"):
            if not name.startswith(first):
                break
        else:
            number = re.match(r"\+?([0-9]+)", name)
            if number is None:
                break
            name = str(int(number[1]))
        if name in names:
            return []
        names.append(name)
    return names


def worker_devices(
    environ: Mapping[str, str], n_visible: int, gpus: Sequence[Sequence[str]]
) -> list[str]:
    """Return the CUDA_VISIBLE_DEVICES of one worker for each device.

    A process sees at most one MIG slice, so that each slice needs a worker of its own.

    Args:
        environ: the environment of this process.
        n_visible: devices that CUDA shows this process.
        gpus: UUIDs of the machine's GPUs, each followed by those of its slices; empty if unknown.
    """
    names = visible_names(environ.get(VISIBLE))
    has_slices = any(len(gpu) > 1 for gpu in gpus)
    if names is None and has_slices:
        return [uuid for gpu in gpus for uuid in (gpu[1:] or gpu)]
    if names is None:
        return [str(n) for n in range(n_visible)]
    if not names:
        return []
    if names[0].startswith("MIG-"):
        return names
    if not has_slices:
        return names[:n_visible]
    slices = {str(n): gpu[1:] for n, gpu in enumerate(gpus)}
    slices |= {gpu[0]: gpu[1:] for gpu in gpus}
    return [uuid for name in names for uuid in (slices.get(name) or [name])]


def device_name(gpu: str) -> str:
    """Return the worker's name for a device: cuda0, or the beginning of a UUID."""
    if gpu.isdigit():
        return f"cuda{gpu}"
    uuid, *slice_of = gpu.replace("MIG-", "").replace("GPU-", "").split("/")
    return "-".join(["cuda", uuid[:8], *slice_of])


def card_of(
    gpu: str, environ: Mapping[str, str], uuids: Sequence[str], cards: Sequence[Card]
) -> Card | None:
    """Return NVML's description of a worker's device; None if it has none.

    CUDA may number devices in another order than NVML, so numbers are compared by the UUID that
    CUDA has for each.

    Args:
        gpu: the worker's CUDA_VISIBLE_DEVICES, one of `worker_devices`.
        environ: the environment of this process.
        uuids: of the visible devices, in CUDA's order.
        cards: of the machine's GPUs.
    """
    wanted = gpu
    if gpu.isdigit():
        names = visible_names(environ.get(VISIBLE))
        place = int(gpu) if names is None else names.index(gpu)
        if place >= len(uuids):
            return None
        wanted = uuids[place]
    wanted = _bare(wanted)
    every = [each for card in cards for each in (card, *card.slices)]
    return next((card for card in every if card.uuid and _bare(card.uuid).startswith(wanted)), None)


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()
