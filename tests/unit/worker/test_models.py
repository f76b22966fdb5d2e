"""All jobs of a model share one load, and get the same scores as from a load of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankmill import metrics
from rankmill.contract.job import JobSpec
from rankmill.contract.reuse import difference
from rankmill.errors import ModelNotAllowed, ModelUnavailable
from rankmill.models import permission
from rankmill.settings import settings
from tests.support.models.checkpoints import BUILDERS
from tests.support.models.published import PUBLISHED
from worker import models
from worker.engine.scorer import Agreement, PairWindow, Scorer
from worker.metrics.counters import meters
from worker.models import LoadedModel, load, release

pytestmark = pytest.mark.slow

TEXTS = ["a b c d e f g h i j k l m n o p", "a", "search engine", "x y z " * 20]
WINDOW = PairWindow([text for text in TEXTS for _ in TEXTS], TEXTS * len(TEXTS))

# The first options are those that the model is loaded for.
OPTIONS: list[dict[str, Any]] = [
    {"max_length": 24},
    {"max_length": 12},
    {"max_length": 12, "max_batch_tokens": 64},
    {"max_length": 24, "activation": "none"},
    {},
]


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return BUILDERS["bert"](tmp_path / "model")


def spec(folder: Path, **options: Any) -> JobSpec:
    return JobSpec(**{"input_uri": "in", "output_uri": "out", "model_id": str(folder), **options})


def n_loads() -> float:
    (metric,) = meters()._counters[metrics.MODEL_LOADS].collect()
    return next(each.value for each in metric.samples if each.name.endswith("_total"))


def scores_of(model: LoadedModel) -> list[np.ndarray]:
    assert isinstance(model.scorer, Scorer)
    (scores,) = model.scorer.score([WINDOW])
    return [scores.logits, scores.n_tokens, scores.truncated]


def agreement_of(model: LoadedModel) -> Agreement:
    assert isinstance(model.scorer, Scorer)
    return model.scorer.agreement(WINDOW)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_jobs_of_one_model_share_its_weights_and_score_as_if_alone(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    folder = BUILDERS[name](tmp_path / name)
    jobs = [spec(folder, precision="bf16", **options) for options in OPTIONS]
    before = n_loads()
    shared = [load(job) for job in jobs]
    # Twice, the second time over state that the others may have changed.
    scores = [[scores_of(model) for model in shared] for _ in range(2)]
    agreements = [agreement_of(model) for model in shared[:2]]
    assert n_loads() == before + 1
    assert [load(job) for job in jobs] == shared
    for at, job in enumerate(jobs):
        release()
        alone = load(job)
        assert alone.scoring == shared[at].scoring
        for each in scores:
            assert all(map(np.array_equal, each[at], scores_of(alone)))
        if at < len(agreements):
            assert agreements[at] == agreement_of(alone)
    assert n_loads() == before + 1 + len(jobs)
    assert len({(model.scoring.max_length, model.scoring.activation) for model in shared}) == 4


def test_jobs_with_other_prompts_share_weights_and_no_recipe(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write = next(each.write for each in PUBLISHED if each.recipe == "qwen3-reranker")
    folder = write(tmp_path / "Qwen3-Reranker-0.6B")
    options: list[dict[str, Any]] = [
        {"prompt": "Find prose"},
        {"prompt": "Find code"},
        {"prompt": "Find code", "query_prefix": "q: "},
        {"prompt": "Find code", "yes_token": "yes"},
    ]
    jobs = [spec(folder, precision="fp32", **each) for each in options]
    before = n_loads()
    shared = [load(job) for job in jobs[:3]]
    assert n_loads() == before + 1
    scores = [scores_of(model)[0].tolist() for model in shared]
    scores.append(scores_of(load(jobs[3]))[0].tolist())
    assert n_loads() == before + 2
    assert len({tuple(each) for each in scores}) == len(jobs)
    alone = load(jobs[1])
    assert n_loads() == before + 3
    assert scores_of(alone)[0].tolist() == scores[1] and alone.scoring == shared[1].scoring
    assert len({model.scoring.recipe_sha256 for model in shared}) == 3
    why = difference(shared[0].scoring, shared[1].scoring)
    assert why == "the earlier job differs in the recipe: prompt, template or answer tokens"


def test_other_weights_are_loaded(folder: Path, tmp_path: Path) -> None:
    other = BUILDERS["bert"](tmp_path / "other")
    before = n_loads()
    for job in (spec(folder), spec(other), spec(other, precision="fp32"), spec(folder)):
        load(job)
    assert n_loads() == before + 4


def test_changed_files_are_loaded_again_by_a_job_with_other_options(folder: Path) -> None:
    first = load(spec(folder, max_length=24))
    torch.manual_seed(1)
    BUILDERS["bert"](folder)
    second = load(spec(folder, max_length=12))
    assert first.scoring.weights_sha256 != second.scoring.weights_sha256
    assert not np.array_equal(scores_of(first)[0], scores_of(second)[0])


def test_files_that_were_written_over_are_loaded_again(folder: Path) -> None:
    first = load(spec(folder))
    assert load(spec(folder)) is first
    path = folder / "model.safetensors"
    content = path.read_bytes()
    with path.open("r+b") as file:  # in place, so that the mapped weights change, too
        file.write(content)
    second = load(spec(folder))
    assert second is not first
    assert second.scoring == first.scoring


def test_files_that_were_replaced_are_loaded_again(folder: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(folder)
    first = load(spec(current), "one job")
    (folder / "new").write_bytes((folder / "tokenizer.json").read_bytes() + b" ")
    (folder / "new").rename(folder / "tokenizer.json")
    assert load(spec(current), "one job") is first
    second = load(spec(current), "another job")
    assert second.scoring.tokenizer_sha256 != first.scoring.tokenizer_sha256
    torch.manual_seed(1)
    BUILDERS["bert"](tmp_path / "other")
    (tmp_path / "new").symlink_to(tmp_path / "other")
    (tmp_path / "new").rename(current)
    third = load(spec(current))
    assert third.scoring.weights_sha256 != second.scoring.weights_sha256
    assert not np.array_equal(scores_of(third)[0], scores_of(second)[0])


def test_each_job_is_checked_against_the_allowed_models(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(spec(folder))
    narrower = settings().model_copy(update={"allowed_models": ("demo",)})
    monkeypatch.setattr(permission, "settings", lambda: narrower)
    with pytest.raises(ModelNotAllowed):
        load(spec(folder))


def test_options_that_do_not_fit_leave_nothing_in_memory(tmp_path: Path) -> None:
    """Free the model, so that the next try has the whole device."""
    folder = BUILDERS["qwen3-chat"](tmp_path / "model")
    load(spec(folder))
    with pytest.raises(ModelUnavailable, match="max_length 8 leaves no room"):
        load(spec(folder, max_length=8))
    assert not models._held
