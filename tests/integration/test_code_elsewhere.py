"""Models whose code is in another repository: fetched, pinned and fingerprinted with the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import dynamic_module_utils

from producer.pull import pull, store
from rankmill.contract.job import JobSpec
from rankmill.contract.results import Scoring
from rankmill.errors import ModelUnavailable
from rankmill.settings import settings
from tests.support.hub import Hub, files_of, running_hub, use_hub
from tests.support.models.own_code import gte_published
from worker import models

MODEL, CODE = "acme/own-reranker", "Alibaba-NLP/new-impl"
CONFIGURATION = b"""
from transformers import XLMRobertaConfig
class NewConfig(XLMRobertaConfig):
    model_type = "new"
"""
MODELING = b"""
from transformers import XLMRobertaForSequenceClassification
from .configuration import NewConfig
class NewForSequenceClassification(XLMRobertaForSequenceClassification):
    config_class = NewConfig
"""

Allow = Callable[[bool], None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    torch.manual_seed(0)
    with running_hub() as served:
        use_hub(served, monkeypatch)
        served.publish(MODEL, files_of(gte_published(tmp_path / "made")))
        served.publish(
            CODE,
            {
                **{"configuration.py": CONFIGURATION, "modeling.py": MODELING},
                **{"README.md": b"code", "old/modeling.py": b"old"},
            },
        )
        yield served


@pytest.fixture
def allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Allow]:
    """Return what sets the permission; the model store and the cache of code are new ones."""
    monkeypatch.setenv("RANKMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("RANKMILL_DEVICE", "cpu")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))

    def set_permission(may_run: bool) -> None:
        monkeypatch.setenv("RANKMILL_REMOTE_CODE_MODELS", MODEL if may_run else "someone/else")
        settings.cache_clear()

    set_permission(True)
    yield set_permission
    settings.cache_clear()


def scoring() -> Scoring:
    models.release()
    job = JobSpec(input_uri="in", output_uri="out", model_id=MODEL, precision="fp32")
    try:
        return models.load(job).scoring
    finally:
        models.release()


def test_code_of_another_repository_is_pinned_with_the_model(hub: Hub, allow: Allow) -> None:
    pulled = pull(MODEL)
    (code,) = hub.commits[CODE]
    assert pulled.stored.code == {CODE: code}
    names = {path.name for path in pulled.folder.iterdir()}
    assert {"configuration.py", "modeling.py"} <= names and "old" not in names
    (kept,) = store().models()
    assert kept.commits[0].code == {CODE: code} and not store().damaged(kept)

    hub.publish(CODE, {"configuration.py": CONFIGURATION, "modeling.py": b"raise SystemExit"})
    n_asked = len(hub.asked)
    assert pull(MODEL).stored.code == {CODE: code} and len(hub.asked) == n_asked
    hub.commits.clear()
    first = scoring()
    assert first.architecture == "NewForSequenceClassification" and first.path == "padded"

    # Of the same length: another one is refused as cut short.
    (pulled.folder / "modeling.py").write_bytes(MODELING[:-1] + b" ")
    assert scoring().tokenizer_sha256 != first.tokenizer_sha256


def test_code_is_fetched_only_where_it_may_run(hub: Hub, allow: Allow) -> None:
    allow(False)
    with pytest.raises(ModelUnavailable, match=rf"{CODE}; list the model in RANKMILL_REMOTE_CODE"):
        pull(MODEL)
    assert not [name for name, _ in hub.asked if name.endswith(".py")]
    allow(True)
    n_asked = len(hub.asked)
    pull(MODEL)
    assert sorted(name for name, _ in hub.asked[n_asked:]) == ["configuration.py", "modeling.py"]


def with_auto_map(hub: Hub, reference: str) -> None:
    (files,) = hub.commits[MODEL].values()
    config = json.loads(files["config.json"]) | {"auto_map": {"AutoConfig": reference}}
    hub.publish(MODEL, files | {"config.json": json.dumps(config).encode()})


def named_twice(hub: Hub) -> None:
    (files,) = hub.commits[MODEL].values()
    hub.publish(MODEL, files | {"modeling.py": b"another = True"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hub: hub.commits.pop(CODE), "new-impl: the hub has no such model"),
        (lambda hub: hub.publish(CODE, {"README.md": b""}), r"new-impl, which has no \*.py"),
        (named_twice, "modeling.py of Alibaba-NLP/new-impl has the name of another file"),
        (lambda hub: with_auto_map(hub, "../x--a.B"), "'../x', not a hub id"),
        (lambda hub: with_auto_map(hub, f"{CODE}--absent.B"), "no absent.py, which auto_map names"),
    ],
)
def test_code_that_cannot_be_had_is_one_line(
    change: Callable[[Hub], object], message: str, hub: Hub, allow: Allow
) -> None:
    change(hub)
    with pytest.raises(ModelUnavailable, match=message) as refused:
        pull(MODEL)
    assert "\n" not in str(refused.value)
    assert not store().models()
