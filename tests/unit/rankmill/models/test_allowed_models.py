"""Models that jobs may name, and those whose own code may run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer.jobs.check import check
from rankmill.contract.job import JobSpec
from rankmill.errors import ModelUnavailable, NotAllowed
from rankmill.models.locate import locate_model
from rankmill.models.permission import check_model_allowed, is_code_allowed
from rankmill.settings import settings
from tests.support.inputs import pairs, write
from worker import models

Allow = Callable[..., None]

CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({marker!r}).touch()

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Allow]:
    def set_variables(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"RANKMILL_{name.upper()}", str(value))
        settings.cache_clear()

    settings.cache_clear()
    models.release()
    yield set_variables
    settings.cache_clear()
    models.release()


@pytest.fixture
def coded_model(model_folder: Path, tmp_path: Path) -> Path:
    """Return a model that only its own code can load; the code leaves a mark next to it."""
    folder = tmp_path / "coded"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own"
    config["architectures"] = ["OwnModel"]
    config["auto_map"] = {
        "AutoConfig": "own_code.OwnConfig",
        "AutoModelForSequenceClassification": "own_code.OwnModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_code.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    return folder


def spec(model: object) -> JobSpec:
    return JobSpec(input_uri="in", output_uri="out", model_id=str(model))


@pytest.mark.parametrize("name", ["demo", "null", "null:100", "BAAI/x", "mine/any", "/models/a/b"])
def test_what_is_listed_may_be_used(allow: Allow, name: str) -> None:
    allow(allowed_models="demo, null,BAAI/x,mine/*,/models/a", allowed_prefixes="/data")
    check_model_allowed(name)


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "null:1", "BAAI/x2", "BAAI", "BAAI/x/", "mine/", "mine/a/b", "mine/../x"),
        *("minemine/a", "/models/a2", "/models/a/../b", "/etc", "x" * 10**5, "/" + "x" * 10**5),
    ],
)
def test_what_is_not_listed_is_refused_with_what_is(allow: Allow, name: str) -> None:
    allow(allowed_models="BAAI/x,mine/*,/models/a")
    with pytest.raises(ModelUnavailable, match=r"RANKMILL_ALLOWED_MODELS.*mine/\*") as caught:
        locate_model(name)
    assert len(str(caught.value)) < 500


def test_a_link_in_an_allowed_folder_is_followed(allow: Allow, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path)
    allow(allowed_models=tmp_path / "models")
    with pytest.raises(ModelUnavailable, match="RANKMILL_ALLOWED_MODELS"):
        check_model_allowed(f"{tmp_path}/models/link")


def test_a_folder_must_be_allowed_as_a_place_where_models_are_not_limited(
    allow: Allow, model_folder: Path, tmp_path: Path
) -> None:
    allow(allowed_prefixes=tmp_path)
    with pytest.raises(NotAllowed, match="RANKMILL_ALLOWED_PREFIXES"):
        locate_model(str(model_folder))
    shutil.copytree(model_folder, tmp_path / "model")
    locate_model(str(tmp_path / "model"))
    (tmp_path / "model" / "vocab.txt").unlink(missing_ok=True)
    (tmp_path / "model" / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(NotAllowed, match=r"vocab\.txt"):
        locate_model(str(tmp_path / "model"))
    locate_model("demo")


def test_submitting_and_scoring_both_refuse(
    allow: Allow, model_folder: Path, tmp_path: Path
) -> None:
    source = write(pairs(1, 2), tmp_path / "in.parquet")
    job = spec(model_folder).model_copy(update={"input_uri": str(source)})
    check(job)
    allow(allowed_models="demo")
    of_hub = job.model_copy(update={"model_id": "some-owner/some-model"})
    for refuse in (
        *(lambda: check(job), lambda: check(of_hub)),
        *(lambda: models.load(job), lambda: models.load(of_hub), lambda: models.load(spec("null"))),
    ):
        with pytest.raises(ModelUnavailable, match="RANKMILL_ALLOWED_MODELS"):
            refuse()


def test_code_of_a_model_does_not_run_and_the_line_says_what_allows_it(
    allow: Allow, coded_model: Path
) -> None:
    allow(remote_code_models="someone/else")
    with pytest.raises(ModelUnavailable, match="RANKMILL_REMOTE_CODE_MODELS") as caught:
        models.load(spec(coded_model))
    assert "\n" not in str(caught.value)
    assert not coded_model.with_name("ran").exists()


def test_code_of_a_listed_model_runs(
    allow: Allow, coded_model: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(
        dynamic_module_utils, "HF_MODULES_CACHE", str(coded_model.with_name("modules"))
    )
    allow(remote_code_models=coded_model, device="cpu")
    loaded = models.load(spec(coded_model))
    assert coded_model.with_name("ran").exists()
    assert loaded.scoring.architecture == "OwnModel" and loaded.scoring.path == "padded"
    assert not is_code_allowed(str(model_folder))
