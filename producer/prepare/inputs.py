"""Which inputs must be turned into pairs first."""

from __future__ import annotations

from rankmill.errors import InputError
from rankmill.spec import InputFile, JobSpec


def needs_prepare(spec: JobSpec) -> bool:
    return spec.layout != "pairs" or spec.cluster


def find_inputs(spec: JobSpec) -> tuple[InputFile, ...]:
    raise InputError(f"--layout {spec.layout} cannot be prepared yet; give pairs by query")
