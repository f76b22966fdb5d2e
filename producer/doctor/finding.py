"""What a look at one thing found: a fact, and where that is bad the mend."""

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
    mend: str = ""


def ok(name: str, message: str) -> Finding:
    return Finding(name=name, state="ok", message=message)


def warning(name: str, message: str, mend: str) -> Finding:
    return Finding(name=name, state="warning", message=message, mend=mend)


def problem(name: str, message: str, mend: str) -> Finding:
    return Finding(name=name, state="problem", message=message, mend=mend)
