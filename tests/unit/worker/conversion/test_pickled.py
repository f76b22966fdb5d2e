"""Pickled weights become equal safetensors, and nothing in a pickle runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rankmill.errors import ModelUnavailable
from tests.support.models.checkpoints import BUILDERS
from tests.support.models.pickles import TouchesFile, pickle_weights, save_pickled
from worker.conversion.convert import convert
from worker.conversion.pickled import convert_weights
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow

pytestmark = pytest.mark.slow

WINDOW = PairWindow(["a fast search"] * 3, ["an engine", "", "naïve café"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return BUILDERS["bert"](tmp_path / "model")


def logits(folder: Path) -> list[float]:
    (scores,) = Scorer.load(folder, precision="fp32").score([WINDOW])
    return scores.logits.tolist()


@pytest.mark.parametrize(("n_shards", "legacy"), [(1, False), (1, True), (3, False)])
def test_the_weights_and_scores_are_the_same(folder: Path, n_shards: int, legacy: bool) -> None:
    expected = logits(folder)
    tensors = pickle_weights(folder, n_shards, legacy=legacy)
    files = convert(folder, folder, weights=True, tokenizer=False, may_run_code=False)
    found = {}
    for name in files:
        if name.endswith(".safetensors"):
            found |= load_file(folder / name)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert len(files) == (1 if n_shards == 1 else n_shards + 1)
    assert logits(folder) == expected
    before = [(folder / name).read_bytes() for name in files]
    convert_weights(folder, folder, with_aliases=False)
    assert [(folder / name).read_bytes() for name in files] == before


def test_a_tensor_with_two_names_is_written_once_and_views_are_written_whole(
    tmp_path: Path,
) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        **{"a": whole, "b": whole, "half": whole[:2], "turned": whole.t(), "none": torch.empty(0)},
        **{"nan": torch.tensor([float("nan")]), "bf16": whole.bfloat16(), "one": torch.tensor(1)},
    }
    save_pickled(tmp_path, tensors)
    assert convert_weights(tmp_path, tmp_path, with_aliases=False) == ["model.safetensors"]
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == tensors.keys() - {"b"}
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["b"] == "a" and file.metadata()["format"] == "pt"
    for name in tensors.keys() - {"b", "nan"}:
        assert torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype
    convert_weights(tmp_path, tmp_path, with_aliases=True)
    assert load_file(tmp_path / "model.safetensors").keys() == tensors.keys()


@pytest.mark.parametrize("where", ["tensor", "root", "legacy", "shard", "module"])
def test_a_pickle_that_would_run_code_is_refused(where: str, folder: Path) -> None:
    mark = folder.with_name("ran")
    evil = TouchesFile(mark)
    tensors = pickle_weights(folder, 2 if where == "shard" else 1)
    target = folder / "pytorch_model.bin"
    if where == "shard":
        target = folder / "pytorch_model-00002-of-00002.bin"
    if where == "module":
        (folder / "2_Dense").mkdir()
        target = folder / "2_Dense" / "pytorch_model.bin"
        modules = [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]
        (folder / "modules.json").write_text(json.dumps(modules))
    content = evil if where == "root" else tensors | {"x": evil}
    torch.save(content, target, _use_new_zipfile_serialization=where != "legacy")
    with pytest.raises(ModelUnavailable, match=r"holds posix\.system.*nothing of it was run") as no:
        convert_weights(folder, folder, with_aliases=False)
    assert str(target) in str(no.value) and "\n" not in str(no.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of weights of torch, or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a file of weights"),
        (b"PK\x03\x04 cut short", "not a file of weights"),
        ([1, 2], "holds a list, not tensors by name"),
        ({}, "holds a dict, not tensors by name"),
        ({"model": {"w": torch.ones(1)}}, "'model' is a dict, not a tensor"),
        ({"epoch": 3, "w": torch.ones(1)}, "'epoch' is a int, not a tensor"),
        ({"w": torch.ones(2, 2).to_sparse()}, "w is not a plain tensor"),
        ({"w": torch.nn.Linear(1, 1)}, "could run code"),
    ],
)
def test_a_file_of_anything_else_is_one_line(content: object, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=message) as refused:
        convert_weights(tmp_path, tmp_path, with_aliases=False)
    line = str(refused.value)
    assert "pytorch_model.bin" in line and "\n" not in line and len(line) < 500


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"w": "../x.bin"}, "names '../x.bin'"),
        ({"w": "a.safetensors"}, "shards are"),
        ({"w": "pytorch_model-1.bin", "v": "pytorch_model-1.bin"}, "lacks v"),
        ({"w": "pytorch_model-2.bin"}, "missing, though"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_that_does_not_fit_is_one_line(
    weight_map: dict[str, str], message: str, tmp_path: Path
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    index = {"weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match=message):
        convert_weights(tmp_path, tmp_path, with_aliases=False)


def test_a_result_that_cannot_be_scored_with_is_refused(folder: Path) -> None:
    tensors = pickle_weights(folder)
    del tensors["classifier.weight"]
    save_pickled(folder, tensors)
    with pytest.raises(ModelUnavailable, match=r"lack classifier\.weight"):
        convert(folder, folder, weights=True, tokenizer=False, may_run_code=False)
