from __future__ import annotations

from pathlib import Path

import pytest

from rankmill.errors import ModelUnavailable
from rankmill.models import check_folder, locate

GOOD = ("config.json", "model.safetensors", "tokenizer.json")


def folder_with(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_a_whole_folder_passes(tmp_path: Path) -> None:
    check_folder(folder_with(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("model.safetensors", "tokenizer.json"), "no config.json"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("config.json", "tokenizer.json", "pytorch_model.bin"), "only pickled weights"),
        (("config.json", "model.safetensors"), "no tokenizer"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        check_folder(folder_with(tmp_path, names))


def test_a_model_that_is_nowhere_says_what_to_do() -> None:
    with pytest.raises(ModelUnavailable, match=r"hub is out of reach.*--model PATH"):
        locate("some-owner/some-model")


def test_a_name_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder nor a hub id"):
        locate("a/b/c/d")


def test_the_demo_model_comes_with_the_checkout() -> None:
    assert (locate("demo") / "README.md").is_file()
