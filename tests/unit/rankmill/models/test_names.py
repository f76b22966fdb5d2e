from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from producer.pull import pull
from rankmill.contract.base import check_revision
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.errors import InputError, ModelUnavailable
from rankmill.models.checkpoint import check_checkpoint, check_names
from rankmill.models.locate import check_model_if_here, locate_model

GOOD = ("config.json", "model.safetensors", "tokenizer.json")


def test_a_whole_folder_passes() -> None:
    check_names("here", set(GOOD))
    check_checkpoint(locate_model("demo"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("model.safetensors", "tokenizer.json"), "no config.json"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("config.json", "tokenizer.json", "pytorch_model.bin"), "only pickled weights"),
        (("config.json", "model.safetensors"), "no tokenizer"),
        (("config.json", "model.safetensors", "vocab.json"), "merges.txt is not"),
        (("config.json", "rank.safetensors", "vocab.txt"), "other names.*rank.safetensors"),
        ((*GOOD, "adapter_config.json"), "an adapter"),
        ((*GOOD, "shard-00001-model-00001-of-00002.safetensors"), "a distributed checkpoint"),
    ],
)
def test_what_is_missing_is_said(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        check_names("here", set(names))


@pytest.mark.parametrize(
    "names", [["spm.model"], ["spiece.model"], ["tokenizer.model"], ["vocab.json", "merges.txt"]]
)
def test_older_tokenizers_are_converted_first_unless_the_models_code_reads_them(
    names: list[str],
) -> None:
    files = {"config.json", "model.safetensors", *names}
    with pytest.raises(ModelUnavailable, match=rf"{names[0]}.*`rankmill models convert here`"):
        check_names("here", files)
    check_names("here", files, runs_code=True)
    for whole in ("tokenizer.json", "vocab.txt"):
        check_names("here", files | {whole})


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "feature/x", "a" * 40, "é"])
def test_a_commit_or_a_ref_is_a_revision(revision: str) -> None:
    assert check_revision(revision) == revision
    assert JobSpec(input_uri="in", output_uri="out", model_revision=revision)


@pytest.mark.parametrize(
    "revision",
    [
        *("", "/models/ref", "../x", "a/../b", "..", ".", "~", "a b", "a\\b", "a\nb", "a\0", "a^"),
        *(
            "@{1}",
            "@",
            "a//b",
            "a/",
            "-x",
            "a:b",
            "x.lock",
            ".git/x",
            "a/.b",
            "a.",
            "a?",
            "x" * 256,
        ),
        "a\u202eb",
    ],
)
def test_any_other_revision_is_refused_everywhere(revision: str) -> None:
    with pytest.raises(InputError, match="--revision") as caught:
        locate_model("some-owner/some-model", revision)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError, match="--revision"):
        JobSpec(input_uri="in", output_uri="out", model_revision=revision)
    with pytest.raises(InputError, match="--revision"):
        pull("some-owner/some-model", revision)


@pytest.mark.parametrize("model", ["demo", "null", "folder"])
def test_a_revision_of_a_model_that_has_none_is_refused(model: str, tmp_path: Path) -> None:
    options = JobOptions(
        input_uri="in",
        model_id=str(tmp_path) if model == "folder" else model,
        model_revision="v1",
    )
    with pytest.raises(InputError, match=r"--revision v1: .* is not a model of the hub"):
        check_model_if_here(options)


def test_a_model_that_is_nowhere_says_what_to_do() -> None:
    with pytest.raises(ModelUnavailable, match=r"hub is out of reach.*--model PATH"):
        locate_model("some-owner/some-model")


def test_a_name_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="neither a folder nor a hub id"):
        locate_model("a/b/c/d")


def test_the_demo_model_comes_with_the_checkout() -> None:
    assert (locate_model("demo") / "README.md").is_file()
