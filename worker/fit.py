"""Work out whether a model fits into a GPU, by its config and its files' headers, and what would.

The arithmetic counts weights, and what a layer keeps of each token of a batch. Real batches are
measured; see worker/engine/device/memory.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rankmill.contract.job import JobSpec
from rankmill.errors import DeviceFull, HostUnfit
from rankmill.logs import get_logger
from rankmill.models.folder_files import read_json
from rankmill.models.weights import read_tensors
from worker.engine.device.faults import fault_of, first_line
from worker.engine.kernels.precision import resolve_precision

log = get_logger(__name__)

_GIB = 2**30
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
# What is tried in place of a precision that does not fit, the nearest to fp32 first.
_SMALLER = {"fp32": ("bf16", "fp16", "fp8"), "bf16": ("fp8",), "fp16": ("fp8",)}

# The smallest batch that is worth running, as in worker/engine/device/memory.py.
_LEAST_TOKENS = 512

# Activations of a layer: its input and sum, queries, keys and values, the output of attention; and
# two of the width of its feed-forward part.
_OF_HIDDEN, _OF_FFN = 6, 2


@dataclass(frozen=True)
class Size:
    """The size of a model.

    Attributes:
        n_parameters: of all weights.
        n_in_matrices: those of layers' matrices, which fp8 keeps in one byte.
        hidden: width of a token.
        ffn: width of a token in the feed-forward part.
    """

    n_parameters: int
    n_in_matrices: int
    hidden: int
    ffn: int

    @classmethod
    def of(cls, folder: Path) -> Size:
        """Return the size of a folder's model.

        Raises:
            ModelUnavailable: the folder cannot be read.
        """
        config = read_json(folder / "config.json")
        tensors = read_tensors(folder)
        counts = {name: prod(tensor.shape) for name, tensor in tensors.items()}
        matrices = [
            counts[name]
            for name, tensor in tensors.items()
            if len(tensor.shape) == 2 and "embed" not in name
        ]
        hidden, ffn = (config.get(key) for key in ("hidden_size", "intermediate_size"))
        return cls(sum(counts.values()), sum(matrices), int(hidden or 0), int(ffn or 0))

    def weights_bytes(self, precision: str) -> int:
        """Return the bytes of all weights."""
        n_bytes = self.n_parameters * _BYTES[precision]
        return n_bytes - self.n_in_matrices if precision == "fp8" else n_bytes

    def batch_bytes(self, precision: str, n_tokens: int) -> int:
        """Return the bytes of a batch."""
        a_token = _BYTES[precision] * (_OF_HIDDEN * self.hidden + _OF_FFN * self.ffn)
        return n_tokens * a_token


@dataclass(frozen=True)
class Room:
    """The memory of a GPU, in bytes.

    Attributes:
        device: its name for torch.
        free: what nobody uses.
        has_fp8: it can take fp8.
    """

    device: str
    free: int
    total: int
    has_fp8: bool

    @classmethod
    def of(cls, device: str) -> Room:
        """Return the room of a CUDA device now."""
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return cls(device, free, total, torch.cuda.get_device_capability(device) >= (9, 0))


@contextmanager
def fitting(spec: JobSpec, folder: Path, device: str) -> Iterator[None]:
    """Check that a job's model fits before the block loads it; explain it where memory runs out.

    On a CPU nothing is checked.

    Raises:
        HostUnfit: it never fits into this GPU.
        DeviceFull: it would fit if nobody else used the GPU.
    """
    if not device.startswith("cuda"):
        yield
        return
    size, room = Size.of(folder), Room.of(device)
    precision = resolve_precision(spec.precision, device)
    check_fits(spec.model_id, size, precision, room)
    asked, most = spec.max_batch_tokens, fitting_tokens(size, precision, room)
    if asked is not None and asked > most:
        log.warning("max_batch_tokens may not fit", asked=asked, fitting=most)
    try:
        yield
        return
    except Exception as error:
        if fault_of(error) != "memory":
            raise
        line = first_line(error)
    raise DeviceFull(f"{spec.model_id}: {line}; it {explain(size, precision, room)}")


def check_fits(model: str, size: Size, precision: str, room: Room) -> None:
    """Refuse a model whose weights and smallest batch do not fit.

    Raises:
        HostUnfit: it never fits into this GPU.
        DeviceFull: it would fit if nobody else used the GPU.
    """
    need = _need(size, precision)
    if need <= room.free:
        return
    line = f"{model}: {explain(size, precision, room)}"
    raise HostUnfit(line) if need > room.total else DeviceFull(line)


def explain(size: Size, precision: str, room: Room) -> str:
    """Return what the model needs, what the GPU has, and what would fit."""
    need, weights = _need(size, precision), size.weights_bytes(precision)
    line = (
        f"needs {_gib(need)} on {room.device} in {precision} (weights {_gib(weights)}); "
        f"{_gib(room.free)} of {_gib(room.total)} are free"
    )
    if need <= room.free:
        n_tokens = fitting_tokens(size, precision, room)
        return f"{line}; --max-batch-tokens {n_tokens} should fit"
    smaller = [each for each in _SMALLER.get(precision, ()) if each != "fp8" or room.has_fp8]
    fitting = next((each for each in smaller if _need(size, each) <= room.free), None)
    if fitting is not None:
        return f"{line}; --precision {fitting} needs {_gib(_need(size, fitting))}"
    if need <= room.total:
        return f"{line}; stop what else uses it"
    return f"{line}; take a GPU with more memory, or a smaller model"


def fitting_tokens(size: Size, precision: str, room: Room) -> int:
    """Return the tokens of the largest batch that fits besides the weights, in steps of 512."""
    left = room.free - size.weights_bytes(precision)
    n_tokens = left // max(1, size.batch_bytes(precision, 1))
    return max(0, n_tokens // _LEAST_TOKENS * _LEAST_TOKENS)


def _need(size: Size, precision: str) -> int:
    return size.weights_bytes(precision) + size.batch_bytes(precision, _LEAST_TOKENS)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GiB"
