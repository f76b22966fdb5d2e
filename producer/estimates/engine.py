"""Measure a sample with the engine, in a child process: a producer has no torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa

from producer.cluster.local import Device
from rankmill.contract.base import parse
from rankmill.contract.estimate import Measurement, MeasureRequest
from rankmill.errors import InputError, RankmillError
from rankmill.settings import CHECKOUT


def measure(request: MeasureRequest, sample: pa.Table, device: Device) -> Measurement:
    """Run `worker.estimate` on a device of this machine.

    Raises:
        InputError: the model cannot be loaded with these options.
    """
    done = subprocess.run(
        [sys.executable, "-m", "worker.estimate"],
        input=request.with_sample(sample),
        capture_output=True,
        cwd=CHECKOUT,
        env={**os.environ, **device.environment},
    )
    if done.returncode == InputError.exit_code:
        raise InputError(done.stdout.decode().strip())
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise RankmillError(f"measuring the sample failed (exit {done.returncode}): {said[-1]}")
    return parse(Measurement, done.stdout, "worker.estimate")
