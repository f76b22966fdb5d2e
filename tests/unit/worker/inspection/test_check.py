"""A check of a model with a recipe: CrossEncoder would score it in another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankmill.contract.inspection import CheckRequest
from rankmill.contract.job import JobSpec
from rankmill.settings import settings
from tests.support.models.published import PUBLISHED
from worker.inspection.check import check
from worker.models import release


def test_a_model_with_a_recipe_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    settings.cache_clear()
    torch.manual_seed(0)
    published = next(each for each in PUBLISHED if each.recipe == "qwen3-reranker")
    folder = published.write(tmp_path / published.model_id.rpartition("/")[2])
    spec = JobSpec(input_uri="in", output_uri="out", model_id=str(folder), precision="fp32")
    found = check(CheckRequest(spec=spec, calibrate_s=0, compares=True))
    release()
    settings.cache_clear()
    assert (found.scoring.path, found.scoring.recipe) == ("prefix", "qwen3-reranker")
    assert (found.parity, found.agreement) == (None, None)
    assert found.no_parity == "CrossEncoder does not know recipe qwen3-reranker"
