"""What the engine says of its device, as errors of the job: nothing in them blames a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.errors import DeviceFault, DeviceFull, RankmillError, is_memory_shortage, unexpected
from worker.engine.device.faults import fault_of, first_line


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise what a device fails with as an error that may pass.

    Raises:
        DeviceFault: the device has failed, and this process with it.
        DeviceFull: the device has no room for now.
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
