"""A measurement that fails is a row, not the end of its call."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from bench.gpu.rows import Rows
from worker.engine.device.faults import fault_of, first_line
from worker.engine.device.memory import release


@contextmanager
def failures_as_rows(rows: Rows, what: str, device: str) -> Iterator[None]:
    """Write a failure of the block as a row, and free the memory that it held.

    Raises:
        Exception: the device has failed; nothing else can be measured on it.
    """
    error_line = None
    try:
        yield
    except Exception as error:
        fault, error_line = fault_of(error), f"{type(error).__name__}: {first_line(error)}"
        rows.write("out_of_memory" if fault == "memory" else "failed", what=what, error=error_line)
        if fault == "device":
            raise
    if error_line is not None:  # the exception, whose frames hold tensors, has gone
        gc.collect()
        release(device)
