"""The result of one check: a fact and, if it is bad, the fix."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["ok", "warning", "problem"]


class Finding(BaseModel):
    """A line of `rankmill doctor`; a problem keeps jobs from running, a warning may."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    message: str
    fix: str = ""


def ok(name: str, message: str) -> Finding:
    """Return a finding that needs no fix."""
    return Finding(name=name, state="ok", message=message)


def warning(name: str, message: str, fix: str) -> Finding:
    """Return a finding that may keep jobs from running."""
    return Finding(name=name, state="warning", message=message, fix=fix)


def problem(name: str, message: str, fix: str) -> Finding:
    """Return a finding that keeps jobs from running."""
    return Finding(name=name, state="problem", message=message, fix=fix)
