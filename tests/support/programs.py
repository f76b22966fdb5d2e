"""Programs other than Python. A missing one skips the test, and fails it in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of an installed program; `make programs` installs them on Debian."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed; `make programs` installs it on Debian"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
