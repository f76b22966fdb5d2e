"""`rankmill models check` as a user types it: facts of a loaded model, or why it is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from producer.inspection.model_check import check_model
from rankmill.errors import InputError
from rankmill.settings import CHECKOUT
from tests.support.command import called
from worker.inspection.parity import NoParity, check_comparable

DEMO = CHECKOUT / "models" / "demo-reranker"

# Each object of it has logits of its own, as no right model does.
_DRIFTING = """
import transformers
from transformers import BertForSequenceClassification as Base
class DriftingForSequenceClassification(Base):
    def __init__(self, config):
        super().__init__(config)
        self.drift = transformers.drift = getattr(transformers, "drift", 0.0) + 1
    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        found.logits = found.logits + self.drift
        return found
"""


def changed_demo(folder: Path, **config: object) -> Path:
    shutil.copytree(DEMO, folder)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | config))
    return folder


def test_a_good_model_is_shown_with_its_parity_and_speed(tmp_path: Path) -> None:
    done = called("models", "check", "demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = dict(
        line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith(" ")
    )
    assert lines["license"] == "apache-2.0"
    assert lines["path"] == "packed"
    assert lines["length"] == "at most 384 tokens a pair"
    assert lines["parity"].startswith("equal to CrossEncoder of sentence-transformers")
    assert "tau 1.000" in done.stdout
    assert int(lines["speed"].split()[0].replace(",", "")) > 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "folder" not in line)
    assert list(tmp_path.iterdir()) == []


def test_scores_that_differ_from_cross_encoder_are_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "DriftingForSequenceClassification"
    folder = changed_demo(
        tmp_path / "model",
        architectures=[name],
        auto_map={"AutoModelForSequenceClassification": f"modeling_drift.{name}"},
    )
    (folder / "modeling_drift.py").write_text(_DRIFTING)
    (folder / "README.md").write_text("no front matter")
    monkeypatch.setenv("RANKMILL_REMOTE_CODE_MODELS", str(folder))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "code"))
    done = called("models", "check", "./model", "--no-calibrate", "--json", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "scores differ from CrossEncoder's by up to 1;" in done.stderr
    found = json.loads(done.stdout)
    assert found["parity"]["max_difference"] == pytest.approx(1, abs=1e-4)
    assert (found["license"], found["calibration"]) == (None, None)
    scoring = found["scoring"]
    assert scoring["path"] == "padded" and "Python code" in scoring["path_reason"]


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("./nowhere", None, "nowhere: no such model folder"),
        ("null", None, "null scores nothing"),
        ("demo", "a b", "--revision 'a b' is not a commit"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_the_engine_starts(
    model: str, revision: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_model(model, revision)


def test_a_model_that_the_engine_refuses_is_one_line_and_exit_2(tmp_path: Path) -> None:
    labels = {str(n): f"LABEL_{n}" for n in range(3)}
    changed_demo(tmp_path / "three", id2label=labels, label2id={v: k for k, v in labels.items()})
    done = called("models", "check", "./three", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "three has 3 labels; a cross-encoder has one or two" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_sentence_transformers_the_parity_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    check_comparable()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    with pytest.raises(NoParity, match="sentence-transformers is not installed"):
        check_comparable()
