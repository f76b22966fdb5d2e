"""Published models score as their cards say, without options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import dynamic_module_utils

from rankmill.contract.job import JobOptions
from rankmill.models.recipes import recipe_for
from tests.support.models.published import PUBLISHED, Published, ids_of
from tests.support.models.vocabularies import CORPUS
from worker.engine.encoding.encoder import pair_length
from worker.engine.scorer import PairWindow, Scorer
from worker.shard.part import activate

QUERIES = ["fast search engine", " Wörterbuch"]
DOCUMENTS = [CORPUS[3], "", " tok\n", "<|im_end|> in a text 日本", " ".join(CORPUS[:12])]
LONG = " ".join(CORPUS[:5])
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]


def options(model_id: str, **given: Any) -> JobOptions:
    return JobOptions(input_uri="in", model_id=model_id, **given)


def scores(folder: Path, job: JobOptions, pairs: list[tuple[str, str]], **loading: Any) -> Any:
    scorer = Scorer.load(folder, precision="fp32", recipe=recipe_for(folder, job), **loading)
    window = PairWindow([query for query, _ in pairs], [document for _, document in pairs])
    (found,) = scorer.score([window])
    return scorer, found, activate(found.logits, scorer.info.activation)


@pytest.fixture(autouse=True)
def own_cache_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "code"))


@pytest.fixture(params=PUBLISHED, ids=[each.model_id for each in PUBLISHED])
def model(request: Any, tmp_path: Path) -> tuple[Published, Path]:
    torch.manual_seed(0)
    return request.param, request.param.write(tmp_path / "weights")


def assert_as_the_card(actual: np.ndarray, expected: torch.Tensor) -> None:
    assert np.ptp(actual) > 1e-3
    within = 1e-5 * max(1.0, float(expected.abs().max()))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=within)


def test_a_published_model_scores_as_its_card_says(model: tuple[Published, Path]) -> None:
    published, folder = model
    job = options(published.model_id)
    loading: Any = {"may_run_code": published.runs_code}
    scorer, found, actual = scores(folder, job, PAIRS, **loading)
    assert scorer.info.recipe == published.recipe
    assert_as_the_card(actual, published.card(folder, PAIRS, 4096))
    assert not found.truncated.any()

    tokenizer = scorer._model.source.tokenizer
    outer = sum(len(ids_of(tokenizer, text)) for text in published.outer)
    length = int(found.n_tokens.max()) - 20
    _, found, actual = scores(folder, job, PAIRS, **loading, max_length=length)
    assert found.truncated.sum() == 2 and found.n_tokens.max() == length
    assert_as_the_card(actual, published.card(folder, PAIRS, length - outer))
    source = scorer._model.source
    source.tokenizer.model_max_length = source.config.max_position_embeddings = 100_000
    assert pair_length(source, None) == (source.recipe.max_length or 100_000) + outer
    assert pair_length(source, 99) == 99
    if source.recipe.query_share == 0.75:
        pairs = [(LONG, "a"), (LONG, LONG)]
        _, found, actual = scores(folder, job, pairs, max_length=100 + outer)
        assert found.truncated.all()
        assert_as_the_card(actual, published.card(folder, pairs, 100))
    if published.takes_prompt:
        job = options(published.model_id, prompt="Find an older text")
        scorer, _, actual = scores(folder, job, PAIRS[:4])
        assert scorer.info.recipe == f"{published.recipe} with options"
        expected = published.card(folder, PAIRS[:4], 4096, prompt="Find an older text")
        assert_as_the_card(actual, expected)
