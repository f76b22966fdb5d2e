"""Broken model folders: one line that names the folder, soon, whatever is wrong with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rankmill.errors import RankmillError
from rankmill.models.locate import locate_model
from rankmill.settings import settings
from tests.support.models.broken import CASES, Break, sharded
from tests.support.models.checkpoints import BUILDERS
from worker.engine.scorer import Scorer
from worker.models import loading

pytestmark = pytest.mark.slow

# On a busy machine with two cores most take well under a second.
LIMIT_S = 10.0


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    names = ("bert", "xlm-roberta", "modernbert", "megatron-bert", "qwen3", "qwen3-chat")
    return {name: BUILDERS[name](root / name) for name in names}


@pytest.fixture(autouse=True)
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever asks the hub waits for longer than a test may take."""
    import socket

    with socket.socket() as listening:  # accepts, and never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        settings.cache_clear()
        yield
        settings.cache_clear()


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [pytest.param(*case, id=name) for name, *case in CASES],
)
def test_one_line_says_what_is_wrong(
    model: str,
    change: Break,
    message: str,
    good: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(good[model], folder)
    change(folder)
    capfd.readouterr()
    started = time.monotonic()
    with pytest.raises(RankmillError, match=message) as caught:
        load(folder)
    assert caught.value.exit_code == 2
    assert time.monotonic() - started < LIMIT_S
    assert capfd.readouterr() == ("", "")  # no report or progress of a library
    line = str(caught.value)
    assert str(folder) in line and "\n" not in line and len(line) < 1000


def load(folder: Path) -> Scorer:
    located = locate_model(str(folder))
    with loading(str(folder)):
        return Scorer.load(located, precision="fp32")


def test_the_unbroken_folders_load(good: dict[str, Path]) -> None:
    for folder in good.values():
        load(folder)


@pytest.mark.parametrize("change", [sharded(lambda *_: None), lambda _: None])
def test_two_loads_give_the_same_bits(change: Break, good: dict[str, Path], tmp_path: Path) -> None:
    from worker.engine.values import PairWindow

    window = PairWindow(["a fast search"] * 3, ["an engine", "", "naïve café"])
    for name, source in good.items():
        folder = tmp_path / name
        shutil.copytree(source, folder)
        change(folder)
        for precision in ("fp32", "bf16"):
            seen = []
            for seed in (0, 1):
                torch.manual_seed(seed)
                scorer = Scorer.load(folder, precision=precision)
                (scores,) = scorer.score([window])
                seen.append(scores.logits.tobytes())
            assert seen[0] == seen[1], (name, precision)
