"""Programs besides Python that some tests run: a missing one skips the test, but in CI fails it."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of an installed program; `make programs` installs them on Debian."""
    path = shutil.which(name)
    if path is None:
        said = f"{name} is not installed; `make programs` installs it on Debian"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return path
