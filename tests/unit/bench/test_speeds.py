"""The speeds of docs/models.md are those of whole models, as far as they say so."""

from __future__ import annotations

import json

import pytest

from bench.speeds import SHAPES, with_layers
from rankmill.settings import CHECKOUT


def test_each_shape_of_the_table_of_models_is_measured() -> None:
    models = json.loads((CHECKOUT / "docs" / "models.json").read_text())
    named = {row["shape"] for row in models if "shape" in row}
    results = json.loads((CHECKOUT / "bench" / "results" / "speeds-cpu.json").read_text())
    assert named == set(SHAPES) == {row["shape"] for row in results["results"]}


def test_layers_that_were_not_measured_take_as_long_as_those_between_two_measured_ones() -> None:
    assert with_layers({2: 3.0, 4: 5.0}, 10) == pytest.approx(11.0)
    assert with_layers({12: 4.0}, 12) == 4.0
