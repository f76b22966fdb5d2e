"""A tokenizer is that of transformers, read quickly; ids beyond the weights are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.support.models.vocabularies import unigram, wordpiece
from tests.support.models.zoo import xlm_roberta
from worker.engine.folder.added_tokens import added_tokens
from worker.engine.folder.model_folder import ModelFolder
from worker.engine.folder.refusal import UnusableFolder
from worker.engine.scorer import Scorer


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def content_of(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


@pytest.fixture(params=["unigram", "wordpiece", "added"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tokenizer = wordpiece() if request.param == "wordpiece" else unigram()
    if request.param == "added":
        tokenizer.add_tokens(["<a b>", "½"])
    tokenizer.save_pretrained(tmp_path)
    rewrite(tmp_path / "tokenizer_config.json", lambda c: c.pop("added_tokens_decoder", None))
    return tmp_path


def same_as_transformers(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    ours, theirs = ModelFolder(folder).tokenizer, AutoTokenizer.from_pretrained(folder)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert str(ours.added_tokens_decoder) == str(theirs.added_tokens_decoder)
    assert str(ours.special_tokens_map) == str(theirs.special_tokens_map)


def test_added_tokens_are_those_that_transformers_reads(saved: Path) -> None:
    found = added_tokens(saved, content_of(saved, "tokenizer_config.json"))
    theirs = AutoTokenizer.from_pretrained(saved).added_tokens_decoder
    assert found is not None
    assert {at: str(token) for at, token in found.items()} == {
        at: str(token) for at, token in theirs.items()
    }
    same_as_transformers(saved)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("special_tokens_map.json", {"mask_token": "<another>"}),
        ("added_tokens.json", {"<another>": 400}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"content": "<another>"}}}),
    ],
)
def test_tokens_of_other_files_are_left_to_transformers(
    name: str, content: dict[str, Any], saved: Path
) -> None:
    path = saved / name
    path.write_text(path.read_text() if path.exists() else "{}")
    rewrite(path, lambda before: before.update(content))
    assert added_tokens(saved, content_of(saved, "tokenizer_config.json")) is None
    same_as_transformers(saved)


def test_a_file_that_begins_otherwise_is_left_to_transformers(saved: Path) -> None:
    path = saved / "tokenizer.json"
    whole = path.read_text()
    rewrite(path, lambda c: c.update(added_tokens=c.pop("added_tokens")))  # comes last
    assert added_tokens(saved, {}) is not None
    same_as_transformers(saved)
    for broken in ("", "[]", whole[:100], whole.replace('"id"', '"at"'), '{"added_tokens": 3}'):
        path.write_text(broken)
        assert added_tokens(saved, {}) is None


@pytest.mark.parametrize("is_added", [False, True])
def test_a_unigram_tokenizer_with_more_ids_than_embeddings_is_refused(
    is_added: bool, tmp_path: Path
) -> None:
    folder = xlm_roberta(tmp_path / "model", positions=130)
    Scorer.load(folder)
    n_rows = content_of(folder, "config.json")["vocab_size"]

    def add(content: dict[str, Any]) -> None:
        if is_added:
            content["added_tokens"].append(content["added_tokens"][-1] | {"content": "<more>"})
            content["added_tokens"][-1]["id"] = n_rows
        else:
            content["model"]["vocab"].append(["more", -9.0])

    rewrite(folder / "tokenizer.json", add)
    with pytest.raises(UnusableFolder, match=f"has token '<?more>?' of id {n_rows}"):
        Scorer.load(folder)
