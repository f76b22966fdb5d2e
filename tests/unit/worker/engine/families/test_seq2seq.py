"""monoT5 and its kind score as its paper says: one step of the decoder, two answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from rankmill.contract.job import JobOptions
from rankmill.errors import ModelUnavailable
from rankmill.models.locate import locate_model
from rankmill.models.recipe import Recipe
from rankmill.models.recipes import recipe_for
from tests.support.models.pickles import save_pickled
from tests.support.models.seq2seq import TRUE_FALSE, YES_NO, mono_t5
from tests.support.models.windows import mixed_window
from worker.conversion.convert import convert
from worker.engine.encoding.encoder import encoder_for
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow
from worker.shard.part import activate

pytestmark = pytest.mark.slow

PAIRS = zip(mixed_window().queries, mixed_window().documents, strict=True)
SHORT = [(query, document) for query, document in PAIRS if len(query) < 40]
WINDOW = PairWindow([query for query, _ in SHORT], [document for _, document in SHORT])
KINDS: dict[str, tuple[str, dict[str, int], str]] = {
    "castorini/monot5-base-msmarco": ("t5", TRUE_FALSE, "monot5"),
    "unicamp-dl/mt5-base-mmarco-v2": ("mt5", YES_NO, "mono-mt5"),
}


def recipe_of(folder: Path, model_id: str, **options: Any) -> Recipe:
    return recipe_for(folder, JobOptions(input_uri="in", model_id=model_id, **options))


@pytest.fixture(params=KINDS, scope="module")
def published(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    torch.manual_seed(0)
    model_type, answers, _ = KINDS[request.param]
    return request.param, mono_t5(tmp_path_factory.mktemp("t5") / "model", model_type, answers)


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    torch.manual_seed(0)
    return "castorini/monot5-base-msmarco", mono_t5(tmp_path_factory.mktemp("t5") / "model")


def expected(
    folder: Path, answers: list[int], window: PairWindow, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair's logit and the probability of the first answer, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    n_end = len(tokenizer("Relevant:")["input_ids"])
    logits, scores = [], []
    for query, document in zip(window.queries, window.documents, strict=True):
        ids = tokenizer(f"Query: {query} Document: {document} Relevant:")["input_ids"]
        if len(ids) > max_length:  # the document alone is cut
            assert len(tokenizer(f"Query: {query} Document:")["input_ids"]) + n_end < max_length
            ids = ids[: max_length - n_end] + ids[-n_end:]
        start = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0, 0]
        logits.append(float(out[answers[0]] - out[answers[1]]))
        scores.append(float(out[answers].log_softmax(0)[0].exp()))
    return np.array(logits), np.array(scores)


def test_a_published_model_scores_as_in_its_paper(published: tuple[str, Path]) -> None:
    model_id, folder = published
    _, answers, name = KINDS[model_id]
    for max_length in (None, 64):
        scorer = Scorer.load(
            folder, precision="fp32", recipe=recipe_of(folder, model_id), max_length=max_length
        )
        info = scorer.info
        assert (info.recipe, info.path, info.activation) == (name, "padded", "sigmoid")
        assert info.max_length == (max_length or 512)
        (found,) = scorer.score([WINDOW])
        logits, scores = expected(folder, list(answers.values()), WINDOW, info.max_length)
        assert np.ptp(logits) > 0.1 and found.truncated.any()
        within = 1e-5 * max(1.0, np.abs(logits).max())
        np.testing.assert_allclose(found.logits, logits, rtol=0, atol=within)
        np.testing.assert_allclose(activate(found.logits, "sigmoid"), scores, rtol=0, atol=1e-5)


def test_the_end_of_the_input_is_never_cut(mono: tuple[str, Path]) -> None:
    model_id, folder = mono
    recipe = recipe_of(folder, model_id)
    encoder = encoder_for(ModelFolder(folder, recipe=recipe), max_length=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer("Relevant:")["input_ids"]
    long = "library " * 100
    encoded = encoder.encode(PairWindow([long, long, "a"], ["a", long, long]))
    for start, length in zip(encoded.starts, encoded.lengths, strict=True):
        ids = encoded.ids[start : start + length].tolist()
        assert length == 64 and ids[-len(end) :] == end
    assert encoded.truncated.all()


def test_two_bytes_a_number_rank_as_four(mono: tuple[str, Path]) -> None:
    model_id, folder = mono
    recipe = recipe_of(folder, model_id)
    exact, short = (
        next(iter(Scorer.load(folder, precision=each, recipe=recipe).score([WINDOW]))).logits
        for each in ("fp32", "bf16")
    )
    assert np.corrcoef(exact, short)[0, 1] > 0.99
    assert len(set(short.tolist())) == len(set(exact.tolist()))  # its head is in fp32


def test_a_t5_without_a_recipe_needs_its_input_and_its_answers(
    mono: tuple[str, Path],
) -> None:
    model_id, folder = mono
    _, answers, _ = KINDS[model_id]
    with pytest.raises(ModelUnavailable, match=r"a T5 without a recipe.*--input-template"):
        locate_model(str(folder))
    template = "Query: {query} Document: {document} Relevant:"
    yes, no = answers
    given = recipe_of(folder, str(folder), input_template=template, yes_token=yes, no_token=no)
    for lacking in (Recipe(), replace(given, yes=None, no=None), replace(given, pieces=())):
        with pytest.raises(UnusableFolder, match="a T5 without a recipe"):
            Scorer.load(folder, precision="fp32", recipe=lacking)
    window = PairWindow(["a fast search", "a"], ["an engine", "the shared library"])
    found, known = (
        next(iter(Scorer.load(folder, precision="fp32", recipe=each).score([window]))).logits
        for each in (given, recipe_of(folder, model_id))
    )
    assert found.tolist() == known.tolist()
    (one,) = Scorer.load(folder, precision="fp32", recipe=replace(given, no=None)).score([window])
    assert one.logits.tolist() != found.tolist()


def test_a_t5_of_pickled_weights_keeps_each_shared_tensor_once(
    published: tuple[str, Path], tmp_path: Path
) -> None:
    model_id, folder = published
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = dict(model.state_dict())
    save_pickled(tmp_path, tensors)
    assert convert(tmp_path, tmp_path, weights=True, tokenizer=False, may_run_code=False)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        aliases = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
        aliases |= {"lm_head.weight"} if model_id.startswith("castorini") else set()
        assert set(tensors) - set(file.keys()) == aliases
    recipe = recipe_of(folder, model_id)
    before, after = (
        next(iter(Scorer.load(each, precision="fp32", recipe=recipe).score([WINDOW]))).logits
        for each in (folder, tmp_path)
    )
    assert after.tolist() == before.tolist()
