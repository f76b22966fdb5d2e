"""Old file formats, from the hub to scores: converted once, pinned, and refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from producer.cli.models import convert_model
from producer.conversion import Converted, convert_folder
from producer.pull import pull, store
from rankmill.errors import InputError, ModelUnavailable, OutputTaken
from rankmill.models.locate import locate_model
from rankmill.settings import settings
from tests.support.command import called
from tests.support.hub import Hub, files_of, running_hub, use_hub
from tests.support.models.checkpoints import BUILDERS, roberta
from tests.support.models.pickles import (
    TouchesFile,
    pickle_weights,
    save_pickled,
    sentencepiece_model,
    without_tokenizer_json,
)
from worker.engine.scorer import Scorer
from worker.engine.values import PairWindow

WINDOW = PairWindow(["a fast search"] * 3, ["an engine", "", "naïve café"])
MODEL = "acme/older-reranker"
XLM_R = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as served:
        use_hub(served, monkeypatch)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as the older repositories have it."""
    torch.manual_seed(0)
    made = roberta(tmp_path / "model", max_position_embeddings=130)
    tensors = pickle_weights(made)
    table = "roberta.embeddings.word_embeddings.weight"
    tensors[table] = torch.randn(130, tensors[table].shape[1])
    save_pickled(made, tensors)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"vocab_size": 130}))
    model = sentencepiece_model(**XLM_R)
    without_tokenizer_json(made, sentencepiece__bpe__model=model)
    return made


def refused(*arguments: object) -> str:
    done = called(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout
    return " ".join(done.stderr.split())


def test_a_converted_model_of_the_hub_scores_without_the_hub(
    hub: Hub, models: Path, folder: Path, tmp_path: Path
) -> None:
    commit = hub.publish(MODEL, files_of(folder))
    line = refused("models", "pull", MODEL)
    assert "only pickled weights (pytorch_model.bin)" in line
    assert f"`rankmill models convert {MODEL}`" in line
    assert not hub.asked and not models.exists()

    done = called("models", "convert", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    stored = Path(json.loads(done.stdout)["folder"])
    assert stored == models / "acme--older-reranker" / commit
    names = {path.name for path in stored.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "sentencepiece.bpe.model")
    }
    n_asked = len(hub.asked)
    assert pull(MODEL).folder == stored  # all is there
    assert len(hub.asked) == n_asked
    convert_model(MODEL, tmp_path / "out")
    copied = files_of(tmp_path / "out")
    assert copied == files_of(stored)
    with pytest.raises(OutputTaken, match="--force"):
        convert_model(MODEL, tmp_path / "out")
    (tmp_path / "out" / "modules.json").write_text("[]")
    convert_model(MODEL, tmp_path / "out", force=True)
    assert files_of(tmp_path / "out") == copied
    hub.commits.clear()
    assert not store().damaged(store().models()[0])
    (scores,) = Scorer.load(locate_model(MODEL), precision="fp32").score([WINDOW])
    assert np.ptp(scores.logits) > 0.01


def test_a_folder_is_converted_into_another_or_in_place(folder: Path, tmp_path: Path) -> None:
    before = files_of(folder)
    out = tmp_path / "new" / "out"
    assert convert_folder(folder, out).files == ("tokenizer.json", "model.safetensors")
    assert files_of(folder) == before
    made = files_of(out)
    assert made.keys() == before.keys() - {"pytorch_model.bin"} | {
        *("model.safetensors", "tokenizer.json")
    }
    with pytest.raises(OutputTaken, match="is not empty; give another folder, or --force"):
        convert_folder(folder, out)
    assert files_of(out) == made
    project = tmp_path / "project"
    project.mkdir()
    (project / "own.py").write_text("")
    with pytest.raises(OutputTaken, match="--force replaces a model's folder, and this is not"):
        convert_folder(folder, project, force=True)
    assert files_of(project).keys() == {"own.py"}

    shutil.copy(out / "tokenizer.json", folder)
    (folder / "model.safetensors").write_bytes(b"another")
    with pytest.raises(
        InputError, match=r"nothing to convert.*--force converts pytorch_model\.bin"
    ):
        convert_folder(folder)
    assert (folder / "model.safetensors").read_bytes() == b"another"
    assert convert_folder(folder, force=True) == Converted(folder, ("model.safetensors",))
    new = {name: made[name] for name in ("model.safetensors", "tokenizer.json")}
    assert files_of(folder) == before | new
    assert not list(tmp_path.rglob(".converting-*"))


def test_a_malicious_pickle_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    torch.save({"w": TouchesFile(tmp_path / "ran")}, folder / "pytorch_model.bin")
    before = files_of(folder)
    line = refused("models", "convert", folder, tmp_path / "out")
    assert f"{folder}/pytorch_model.bin: holds posix.system" in line
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    assert files_of(folder) == before and not list(tmp_path.glob(".converting-*"))


def test_wrong_use_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKMILL_MODELS", raising=False)
    settings.cache_clear()
    (tmp_path / "file").touch()
    for message, model, options in (
        ("no such folder", str(tmp_path / "missing"), {}),
        ("no config.json", str(tmp_path), {}),
        ("--revision v1", str(folder), {"revision": "v1"}),
        ("--force: acme/a is a hub id", "acme/a", {"force": True}),
        ("RANKMILL_MODELS is not set", "acme/a", {}),
        ("is not empty", str(folder), {"out": tmp_path / "file"}),
        ("file: File exists", str(folder), {"out": tmp_path / "file" / "out"}),
    ):
        with pytest.raises(InputError, match=message) as caught:
            convert_model(model, **options)
        assert "\n" not in str(caught.value)


def test_a_job_names_the_command(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=f"`rankmill models convert {folder}` turns them"):
        locate_model(str(folder))
    whole = BUILDERS["bert"](tmp_path / "bert")
    without_tokenizer_json(whole, spiece__model=b"x")
    with pytest.raises(
        ModelUnavailable, match=f"but spiece.model; `rankmill models convert {whole}`"
    ):
        locate_model(str(whole))
