"""A stand-in for CUDA devices: tensors that say `cuda` and whose numbers are on the CPU.

Within a `Card`, every operator of torch on device `cuda` runs at once on the CPU, after the checks
and with the delays of a GPU:

- tensors of two devices do not mix;
- a copy to the host leaves wrong numbers in pinned memory until its device is waited for;
- a copy from pinned memory must find the memory unchanged when the device comes to it;
- an operator that makes the host wait is noted in `waits`;
- any launch can find the memory full.

It is torch's mode for fake tensors, so that torch initializes no CUDA. `CudaRuntime` has the
functions of `torch.cuda`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.support.cuda.flash import varlen_attention

_WRONG = -777  # what pinned memory holds until its copy has been waited for

_aten: Any = torch.ops.aten

# They need a number of the device on the host: its value, or how many results there are.
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "item"}
_GUARDED = {
    torch.Tensor.contiguous: _aten.contiguous.default,
    torch.Tensor.copy_: _aten.copy_.default,
    torch.Tensor.__bool__: lambda tensor: bool(_aten._local_scalar_dense.default(tensor)),
    torch.Tensor.item: _aten._local_scalar_dense.default,
}
_COPYING = {"to", "_to_copy", "copy_", "cpu", "cuda"}


class OnCard(torch.Tensor):
    """A tensor of a device of a card."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, device: torch.device) -> OnCard:
        made: OnCard = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=device,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Their code in torch asks for a guard that a build without CUDA does not have.
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            return Card.active.index(func, *args)
        if func in _GUARDED:
            return _GUARDED[func](*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside the card")


class Queue:
    """The work of one device in its order; a copy to the host is done when it is waited for."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None] | None] = []
        self.n_done = 0

    @property
    def n_launched(self) -> int:
        """The launches so far."""
        return self.n_done + len(self._waiting)

    def launch(self, late: Callable[[], None] | None = None) -> None:
        """Add a launch; `late` is called when the device has come to it."""
        self._waiting.append(late)

    def wait(self, n_launched: int | None = None) -> None:
        """Wait for the first launches, or for all."""
        stop = self.n_launched if n_launched is None else n_launched
        while self.n_done < stop:
            late = self._waiting.pop(0)
            self.n_done += 1
            if late is not None:
                late()


class Card(TorchDispatchMode):
    """Some CUDA devices; use it as a context.

    Attributes:
        current: the current device.
        queues: the work of each device.
        waits: the operators that made the host wait, by name.
        ops: all operators that ran on a device.
        n_ahead: the launches that were queued behind each event when it was waited for.
        is_full: returns whether launch number n finds the memory full.
        n_bytes: bytes allocated on each device so far; nothing is ever freed.
    """

    active: ClassVar[Card]

    def __init__(self, n_devices: int = 2) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.current = 0
        self.queues = [Queue() for _ in range(n_devices)]
        self.waits: list[str] = []
        self.ops: list[str] = []
        self.is_full: Callable[[int], bool] = lambda n: False
        self.n_launches = 0
        self.n_ahead: list[int] = []
        self.n_bytes = [0] * n_devices
        self._pinned: list[torch.Tensor] = []

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Return that it takes the place of torch's own mode."""
        return True

    def __enter__(self) -> Any:
        """Begin; without gradients, whose code asks for a guard that is not in every build."""
        Card.active = self
        self._grad = torch.no_grad()
        self._grad.__enter__()
        # A module that is moved gets new parameters, since those of a CPU cannot hold another kind.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        self._grad.__exit__(*error)

    def begin(self) -> None:
        """Wait for all devices, and forget what has been noted so far."""
        self.wait("begin")
        self.queues = [Queue() for _ in self.queues]
        self.n_launches = 0
        for notes in (self.waits, self.ops, self.n_ahead):
            notes.clear()

    def device(self, name: Any) -> torch.device:
        """Return a device with its index.

        Raises:
            RuntimeError: there is no such device.
        """
        device = torch.device(name)
        if device.type != "cuda":
            return device
        index = self.current if device.index is None else device.index
        if index >= len(self.queues):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        kwargs = dict(kwargs or {})
        name = func._schema.name.split("::")[1]
        leaves = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if name in ("pin_memory", "_pin_memory"):
            return self._pin(args[0].clone())
        if name == "is_pinned":
            return self._is_pinned(args[0])
        if kwargs.get("pin_memory"):
            return self._pin(func(*args, **(kwargs | {"pin_memory": False})))
        given = dict(zip((each.name for each in func._schema.arguments), args, strict=False))
        given |= kwargs
        if name in _COPYING:
            target = self._target(name, given)
            source = given["src"] if name == "copy_" else given["self"]
            if "cuda" in {source.device.type, target.type}:
                return self._copy(func, name, given, args, kwargs, target)
        asked = self.device(given["device"]) if given.get("device") is not None else None
        found = {each.device for each in leaves if isinstance(each, OnCard)}
        if (asked is None and not found) or (asked is not None and asked.type != "cuda"):
            return func(*args, **kwargs)
        counts = given.get("repeats")
        if isinstance(counts, torch.Tensor) and given.get("output_size") is None:
            self.wait(name)
        return self._run(func, name, args, kwargs, asked)

    def index(self, func: Any, *args: Any) -> Any:
        """Run an index or an assignment to one."""
        key = args[1] if isinstance(args[1], tuple) else (args[1],)
        tensors = [each for each in key if isinstance(each, torch.Tensor)]
        if any(each.dtype == torch.bool for each in tensors):
            self.wait("index by a mask")
        if any(not isinstance(each, OnCard) for each in tensors):
            self.wait("index of the host")
        run = operator.getitem if func is torch.Tensor.__getitem__ else operator.setitem
        return self._run(run, "index" if tensors else "view", args, {}, None)

    def wait(self, name: str) -> None:
        """Let the host wait for all devices, because of an operator."""
        self.waits.append(name)
        for queue in self.queues:
            queue.wait()

    def _run(self, func: Any, name: str, args: Any, kwargs: Any, asked: Any) -> Any:
        leaves = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {
            each.device
            for each in leaves
            if isinstance(each, OnCard) or (each.dim() and name != "index")
        }
        devices |= {asked} if asked is not None else set()
        if len(devices) != 1:
            found = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(f"Expected all tensors to be on the same device, found {found}")
        (device,) = devices
        if name in _WAITING:
            self.wait(name)
        held = {id(each.numbers): each for each in leaves if isinstance(each, OnCard)}
        kernel = {"_varlen_attn": varlen_attention}.get(name, func)
        storages = {each.untyped_storage().data_ptr() for each in map(_numbers, leaves)}
        self._launch(device, name)
        args, kwargs = tree_map_only((OnCard, torch.device), _numbers, (args, kwargs))
        out = kernel(*args, **kwargs)

        def wrapped(made: torch.Tensor) -> torch.Tensor:
            if made.untyped_storage().data_ptr() not in storages:
                self.n_bytes[device.index] += made.nbytes
            return held[id(made)] if id(made) in held else OnCard(made, device)

        return tree_map_only(torch.Tensor, wrapped, out)

    def _launch(
        self, device: torch.device, name: str, late: Callable[[], None] | None = None
    ) -> None:
        self.n_launches += 1
        self.ops.append(name)
        if self.is_full(self.n_launches):
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate 2.00 MiB. GPU {device.index} has a total "
                "capacity of 79.10 GiB of which 1.00 MiB is free."
            )
        self.queues[device.index].launch(late)

    def _target(self, name: str, given: dict[str, Any]) -> torch.device:
        if name == "copy_":
            return given["self"].device
        if name == "cpu":
            return torch.device("cpu")
        device = given.get("device")
        if device is None and "other" in given:
            device = given["other"].device
        return given["self"].device if device is None else self.device(device)

    def _copy(
        self,
        func: Any,
        name: str,
        given: dict[str, Any],
        args: Any,
        kwargs: dict[str, Any],
        target: torch.device,
    ) -> Any:
        """Copy within a device, from one to the other, or between a device and the host."""
        source = given["src"] if name == "copy_" else given["self"]
        if source.device == target:
            return self._run(func, name, args, kwargs, None)
        numbers = _numbers(source)
        made = _numbers(given["self"]) if name == "copy_" else None
        if made is None:
            dtype = given.get("dtype") or source.dtype
            made = torch.empty_like(numbers, dtype=dtype)
            if target.type == "cpu" and given.get("non_blocking"):
                self._pin(made)  # as torch does
        host = made if target.type == "cpu" else numbers
        is_late = bool(given.get("non_blocking")) and self._is_pinned(host)
        device = source.device if target.type == "cpu" else target
        if target.type == "cpu" and is_late:
            copied, into = numbers.clone(), made
            made.fill_(_WRONG)
            self._launch(device, name, lambda: _plain(into.copy_, copied))
        elif is_late:
            before = numbers.clone()
            made.copy_(numbers)

            def check() -> None:
                if not _plain(torch.equal, before, numbers):
                    raise AssertionError("pinned memory was changed before the device had read it")

            self._launch(device, name, check)
        else:
            self._launch(device, name)
            made.copy_(numbers)
            self.wait("copy of pageable memory" if given.get("non_blocking") else "copy")
        if name == "copy_":
            return given["self"]
        return OnCard(made, target) if target.type == "cuda" else made

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.append(tensor)  # so that its address is not used again
        return tensor

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        place = tensor.data_ptr()
        return any(
            each.data_ptr() <= place < each.data_ptr() + max(1, each.nbytes)
            for each in self._pinned
        )


def _numbers(tensor: Any) -> Any:
    if isinstance(tensor, torch.device):
        return torch.device("cpu")
    return tensor.numbers if isinstance(tensor, OnCard) else tensor


def _plain(call: Callable[..., Any], *args: Any) -> Any:
    """Call outside of any mode."""
    with torch._C._DisableTorchDispatch(), torch.inference_mode():
        return call(*args)
