"""Ask the engine in a child process: a producer has no torch."""

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
    answer = ask("worker.estimate", request.with_sample(sample), device)
    return parse(Measurement, answer, "worker.estimate")


def ask(module: str, request: bytes, device: Device) -> bytes:
    """Run a module of the worker's side on a device of this machine, and return what it prints.

    Args:
        module: it takes the request on stdin. It prints its answer, or the line of an error with
            whose code it exits.
        request: what it reads.
        device: where it computes.

    Raises:
        InputError: the module refuses the request.
        RankmillError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=request,
        capture_output=True,
        cwd=CHECKOUT,
        env={**os.environ, **device.environment},
    )
    if done.returncode == InputError.exit_code:
        raise InputError(done.stdout.decode().strip())
    if done.returncode < 0:
        raise RankmillError(
            f"{module} was killed by signal {-done.returncode}; did this machine's memory run out?"
        )
    if done.returncode:
        said = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
        raise RankmillError(
            f"{module} failed (exit {done.returncode}): {said[-1] if said else 'no output'}"
        )
    return done.stdout
