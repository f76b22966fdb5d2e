"""Turn the engine's errors about its device into errors of the job that blame no row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.errors import DeviceFault, DeviceFull, RankmillError, is_memory_shortage, unexpected
from worker.engine.device.faults import fault_of, first_line


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise a device's errors as transient ones.

    Raises:
        DeviceFault: the device has failed, and this process with it.
        DeviceFull: the device has no free memory for now.
        MemoryShort: the process has none.
    """
    try:
        yield
    except RankmillError:
        raise
    except Exception as error:
        fault = fault_of(error)
        if fault == "device":
            raise DeviceFault(first_line(error)) from error
        if is_memory_shortage(error):
            raise unexpected(error) from error
        if fault == "memory":
            raise DeviceFull(first_line(error)) from error
        raise
