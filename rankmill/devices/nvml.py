"""Ask NVML, the library behind nvidia-smi, about the GPUs and MIG slices of this machine.

A call may never return when a GPU has failed, so ask from a process or a thread that can be spared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

_GIB = 2**30
_MIG_ON = 1


@dataclass(frozen=True)
class Card:
    """A GPU or a MIG slice; None for what NVML does not know of it.

    Attributes:
        uuid: GPU-… or MIG-….
        pci_bus_id: of the GPU, as in /sys/bus/pci/devices.
        total_bytes: memory, of a slice its own.
        utilization: share of the last moments in which a kernel ran; not known of a slice.
        temperature_c: of the GPU.
        ecc_errors: uncorrected ones since the driver was loaded.
        failure: why the GPU does not answer.
        slices: of a GPU that is divided.
    """

    uuid: str = ""
    name: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None
    used_bytes: int | None = None
    utilization: float | None = None
    temperature_c: int | None = None
    ecc_errors: int | None = None
    failure: str | None = None
    slices: tuple[Card, ...] = ()

    @classmethod
    def of(cls, values: dict[str, Any]) -> Card:
        """Return the card that `dataclasses.asdict` has turned into values."""
        slices = tuple(cls(**each) for each in values.get("slices", ()))
        return cls(**{**values, "slices": slices})

    @property
    def text(self) -> str:
        """A short description for people."""
        if self.failure is not None:
            return f"does not answer: {self.failure}"
        parts = [self.name or "GPU"]
        if self.total_bytes is not None and self.used_bytes is not None:
            used, total = self.used_bytes / _GIB, self.total_bytes / _GIB
            parts.append(f"{used:.1f} of {total:.1f} GiB used")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c} C")
        if self.ecc_errors:
            parts.append(f"{self.ecc_errors} uncorrected ECC errors")
        return ", ".join(parts)


@dataclass(frozen=True)
class Answer:
    """NVML's answer.

    Attributes:
        driver: its version.
        cuda: the newest CUDA that it supports.
        cards: GPUs in the order of their PCI addresses, or the one that was asked for.
        failure: why there is no answer.
    """

    driver: str | None = None
    cuda: str | None = None
    cards: tuple[Card, ...] = ()
    failure: str | None = None


def read_cards() -> Answer:
    """Return all GPUs of the machine, with their slices."""
    return _read(lambda nvml: tuple(_gpus(nvml)))


def read_card(uuid: str) -> Answer:
    """Return one GPU or slice; `uuid` may lack its GPU- or MIG-."""
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")

    def find(nvml: Any) -> tuple[Card, ...]:
        for name in (f"GPU-{bare}", f"MIG-{bare}"):
            handle = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, name)
            if handle is not None:
                parent = _ask(nvml, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
                return (_card(nvml, handle, parent),)
        return (Card(uuid=uuid, failure="NVML does not know it"),)

    return _read(find)


def _read(find: Callable[[Any], tuple[Card, ...]]) -> Answer:
    try:
        import pynvml as nvml  # of nvidia-ml-py, which workers alone have
    except ImportError:
        return Answer(failure="the package nvidia-ml-py is not installed")
    try:
        with _open(nvml):
            number = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
            cuda = f"{number // 1000}.{number % 1000 // 10}" if number else None
            driver = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
            return Answer(driver, cuda, find(nvml))
    except Exception as error:  # whatever it is, the GPU may score all the same
        return Answer(failure=f"NVML: {error}")


@contextmanager
def _open(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        _ask(nvml, nvml.nvmlShutdown)


def _gpus(nvml: Any) -> Iterator[Card]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = _card(nvml, handle, None)
            yield replace(gpu, slices=tuple(_slices(nvml, handle)))
        except nvml.NVMLError as error:
            yield Card(failure=f"GPU {index}: {error}")


def _slices(nvml: Any, handle: Any) -> Iterator[Card]:
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != _MIG_ON:
        return
    for place in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        found = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if found is not None:
            yield _card(nvml, found, handle)


def _card(nvml: Any, handle: Any, gpu: Any) -> Card:
    """Return what NVML knows of a GPU, or of a slice of `gpu`."""
    whole = handle if gpu is None else gpu
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    busy = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    pci = _ask(nvml, nvml.nvmlDeviceGetPciInfo, whole)
    return Card(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=_ask(nvml, nvml.nvmlDeviceGetName, handle),
        # sysfs has four digits of the domain, in lower case.
        pci_bus_id=pci.busId.lower()[-12:] if pci is not None else None,
        total_bytes=memory.total if memory is not None else None,
        used_bytes=memory.used if memory is not None else None,
        utilization=busy.gpu / 100 if busy is not None else None,
        temperature_c=_ask(nvml, nvml.nvmlDeviceGetTemperature, whole, nvml.NVML_TEMPERATURE_GPU),
        ecc_errors=_ask(
            nvml,
            nvml.nvmlDeviceGetTotalEccErrors,
            whole,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        ),
    )


def _ask(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer of a call; None where a driver or a GPU does not support it.

    Raises:
        NVMLError: the GPU has failed.
    """
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
            raise
        return None
