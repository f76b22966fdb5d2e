"""The Python calls that `producer` gives, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import producer


@pytest.mark.parametrize("name", producer.__all__)
def test_every_call_is_the_one_of_its_module(name: str) -> None:
    call = getattr(producer, name)
    assert call.__name__ == name
    assert call.__module__.startswith("producer.")
    assert name in dir(producer)


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "score"
    with pytest.raises(AttributeError, match="module 'producer' has no attribute 'score'"):
        getattr(producer, name)


def test_importing_the_package_imports_no_call_and_no_library() -> None:
    script = """
import sys, producer
assert not {"pyarrow", "pydantic", "celery", "torch"} & sys.modules.keys()
from producer import submit, estimate, evaluate, diff
import producer.estimates.estimate, producer.jobs.submit
from producer import estimate as again
assert again is estimate and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
