"""Popular rerankers score as CrossEncoder does, or are refused, as docs/models.json lists them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import dynamic_module_utils

from rankmill.errors import ModelUnavailable
from rankmill.models.checkpoint import check_checkpoint
from rankmill.models.recipe import Recipe
from rankmill.models.recipes import published_recipe
from rankmill.models.scoring_settings import check_causal, length_limit
from rankmill.models.weights import check_layers
from rankmill.settings import CHECKOUT
from tests.support.models.popular import ZOO
from tests.support.models.windows import mixed_window
from worker.engine.scorer import Scorer, WindowScores
from worker.models import loading
from worker.shard.part import activate

pytestmark = pytest.mark.slow

ROWS = json.loads((CHECKOUT / "docs" / "models.json").read_text())
WINDOW = mixed_window()
SHORT = 128  # a chat template takes some of them
PAIRS = list(zip(WINDOW.queries, WINDOW.documents, strict=True))


@pytest.fixture(autouse=True)
def own_cache_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "code"))


def load(
    folder: Path, *, runs_code: bool, max_length: int | None = None, recipe: Recipe | None = None
) -> Scorer:
    check_checkpoint(folder, may_run_code=runs_code)
    with loading(folder.name):
        return Scorer.load(
            folder,
            precision="fp32",
            may_run_code=runs_code,
            max_length=max_length,
            recipe=recipe,
        )


def score(scorer: Scorer) -> WindowScores:
    (scores,) = scorer.score([WINDOW])
    return scores


def assert_equal(scores: WindowScores, scorer: Scorer, peer: CrossEncoder) -> None:
    actual = activate(scores.logits, scorer.info.activation)
    expected = peer.predict(PAIRS)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_a_model_matches_its_row_of_the_table(row: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = ZOO[row["model"]](tmp_path / "model")
    runs_code = row.get("code") == "listed"
    recipe = published_recipe(folder, row["model"])
    if "refused" in row:
        with pytest.raises(ModelUnavailable) as caught:
            load(folder, runs_code=runs_code, recipe=recipe)
        assert str(caught.value).replace(str(folder), "MODEL") == row["refused"]
        return
    if not recipe.name:
        check_causal(folder)
    check_layers(folder)
    scorer = load(folder, runs_code=runs_code, recipe=recipe)
    info = scorer.info
    facts = (info.architecture, info.path, info.activation, info.max_length)
    assert facts == (row["architecture"], row["path"], row["activation"], row["max_length"])
    assert info.path != "padded" or info.path_reason == row["reason"]
    assert info.recipe == row.get("recipe")
    if recipe.name:
        return  # the test of recipes compares it with its card
    assert length_limit(folder) in (info.max_length, None)  # a default is not in the files
    peer = CrossEncoder(
        str(folder),
        device="cpu",
        trust_remote_code=runs_code,
        model_kwargs={"dtype": torch.float32},
    )
    is_identity = isinstance(peer.activation_fn, torch.nn.Identity)
    assert (peer.max_seq_length, is_identity) == (info.max_length, info.activation == "none")
    assert_equal(score(scorer), scorer, peer)

    short = load(folder, runs_code=runs_code, max_length=SHORT)
    peer.max_seq_length = SHORT
    scores = score(short)
    assert scores.truncated.any()
    assert_equal(scores, short, peer)

    torch.manual_seed(1)
    again = load(folder, runs_code=runs_code, max_length=SHORT)
    assert score(again).logits.tolist() == scores.logits.tolist()


def test_every_row_has_a_checkpoint_and_every_checkpoint_a_row() -> None:
    assert {row["model"] for row in ROWS} == set(ZOO)


@pytest.mark.parametrize("name", [row["model"] for row in ROWS if "code" in row])
def test_code_of_a_model_that_is_not_listed_does_not_run(name: str, tmp_path: Path) -> None:
    folder = ZOO[name](tmp_path / "model")
    with pytest.raises(ModelUnavailable, match="RANKMILL_REMOTE_CODE_MODELS"):
        load(folder, runs_code=False)
    assert not (tmp_path / "code").exists()
