"""The files of a model: each in its folder, each in the fingerprint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankmill.contract.job import JobSpec
from rankmill.errors import ModelUnavailable
from rankmill.models.checkpoint import check_checkpoint
from rankmill.models.folder_files import setting_files
from rankmill.models.locate import locate_model
from rankmill.models.weights import weight_files
from rankmill.settings import settings
from tests.support.models.checkpoints import BUILDERS, write_json
from worker import models


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    settings.cache_clear()
    models.release()
    yield
    settings.cache_clear()
    models.release()


@pytest.fixture
def causal(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return BUILDERS["qwen3"](tmp_path / "causal")


def fingerprint(folder: Path) -> tuple[str, str]:
    models.release()
    job = JobSpec(input_uri="in", output_uri="out", model_id=str(folder), precision="fp32")
    scoring = models.load(job).scoring
    return scoring.weights_sha256, scoring.tokenizer_sha256


def with_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "other.jinja").write_text("{{ messages }}")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a module's config": lambda folder: write_json(
        folder / "1_LogitScore" / "config.json", {"true_token_id": 3, "false_token_id": None}
    ),
    "settings": lambda folder: write_json(
        folder / "sentence_bert_config.json",
        {"transformer_task": "text-generation", "max_seq_length": 64},
    ),
    "activation": lambda folder: write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": "torch.nn.Identity"},
    ),
    "a template": with_template,
    "the tokenizer": lambda folder: (folder / "tokenizer.json").write_text(
        (folder / "tokenizer.json").read_text() + "\n"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_decides_a_score_is_in_the_fingerprint(
    change: Callable[[Path], object], causal: Path
) -> None:
    weights, others = fingerprint(causal)
    change(causal)
    assert fingerprint(causal)[0] == weights
    assert fingerprint(causal)[1] != others


def test_the_weights_that_are_loaded_are_fingerprinted_and_no_others(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    assert [path.name for path in weight_files(folder)] == ["model.safetensors"]
    before = fingerprint(folder)
    shutil.copy(folder / "model.safetensors", folder / "another.safetensors")
    assert fingerprint(folder) == before

    content = load_file(folder / "model.safetensors")
    shards = {f"model-{number}-of-2.safetensors": sorted(content)[number::2] for number in (0, 1)}
    for name, names in shards.items():
        save_file({each: content[each] for each in names}, folder / name)
    weight_map = {each: name for name, names in shards.items() for each in names}
    index = {"metadata": {}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
    assert [path.name for path in weight_files(folder)] == ["model.safetensors"]
    (folder / "model.safetensors").unlink()
    assert [path.name for path in weight_files(folder)] == sorted(shards)
    assert fingerprint(folder)[0] != before[0]


def test_modules_are_among_the_files(causal: Path) -> None:
    names = [path.relative_to(causal).as_posix() for path in setting_files(causal)]
    assert "1_LogitScore/config.json" in names and "modules.json" in names


def test_code_is_fingerprinted_where_it_may_run(causal: Path) -> None:
    (causal / "code.py").touch()
    assert causal / "code.py" not in setting_files(causal)
    assert causal / "code.py" in setting_files(causal, with_code=True)


def in_hub_cache(source: Path, root: Path) -> Path:
    """Copy the folder as the hub's client stores it: links to blobs, also in subfolders."""
    blobs, snapshot = root / "blobs", root / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(each for each in source.rglob("*") if each.is_file())):
        shutil.copy(path, blobs / str(number))
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * (len(link.relative_to(root).parts) - 1))
        link.symlink_to(f"{up}/blobs/{number}")
    return snapshot


def test_links_of_the_hubs_cache_are_followed_and_no_others(causal: Path, tmp_path: Path) -> None:
    snapshot = in_hub_cache(causal, tmp_path / "models--a--b")
    assert fingerprint(snapshot) == fingerprint(causal)
    shutil.copy(causal / "config.json", tmp_path / "elsewhere.json")
    for name in ("config.json", "1_LogitScore/config.json"):
        before = (snapshot / name).readlink()
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(ModelUnavailable, match=rf"{name}: a link out of the model's folder"):
            locate_model(str(snapshot))
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(before)
    locate_model(str(snapshot))


def test_a_module_folder_that_is_a_link_is_refused(causal: Path, tmp_path: Path) -> None:
    (causal / "1_LogitScore").rename(tmp_path / "elsewhere")
    (causal / "1_LogitScore").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelUnavailable, match="a link out of the model's folder"):
        check_checkpoint(causal)


def test_code_of_another_repository_or_none_is_refused_where_it_may_run(causal: Path) -> None:
    config = json.loads((causal / "config.json").read_text())
    for reference, message in (
        ("a/b--code.C", "another repository, a/b"),
        ("code.C", "no code.py"),
    ):
        write_json(causal / "config.json", config | {"auto_map": {"AutoConfig": reference}})
        check_checkpoint(causal)
        with pytest.raises(ModelUnavailable, match=message):
            check_checkpoint(causal, may_run_code=True)
