"""A hostile input ends in success or in one line: it kills and hangs nothing."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

import pytest
import redis

from tests.conftest import StartWorker
from tests.support.hostile import cases, folders
from tests.support.hostile.bounded import BAD, KINDS, ending, preload
from tests.support.hostile.cases import Case
from tests.support.hostile.queued import message_cases
from tests.support.inputs import wait_for

_N_OF_A_GROUP_IN_SLICE = 4
_HEADER = "| inputs | tried | " + " | ".join(KINDS) + " |\n" + "| --- " * (2 + len(KINDS)) + "|"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model and a finished output, in forks."""
    for name in ("duckdb", "transformers.models.bert.modeling_bert", "worker.models"):
        import_module(name)  # not first in a fork, and then again here
    folder = tmp_path_factory.mktemp("made")
    for make in (_make_model, _make_job):
        preload(partial(make, folder), tmp_path_factory.mktemp("log"))
    return folder


def _make_model(folder: Path) -> None:
    import torch

    from tests.support.models.checkpoints import bert

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folders.load(bert(folder / "model", num_labels=1))


def _make_job(folder: Path) -> None:
    from tests.support.finished import finished, planned
    from tests.support.inputs import pairs

    rows = [{**row, "document": str(n)} for n, row in enumerate(pairs(5, 4))]
    (folder / "job").mkdir()
    finished(planned(rows, folder / "job", shard_pairs=7))
    cases.command("status", str(folder / "job" / "out"))


def everything(made: Path) -> list[Case]:
    return [
        *cases.file_cases(40),
        *cases.run_cases(25),
        *cases.place_cases(),
        *cases.name_cases(),
        *cases.output_cases(made / "job", 12),
        *folders.model_cases(made / "model", 20),
        *folders.broken_cases(made),
    ]


@pytest.mark.slow
def test_a_slice_of_the_hostile_inputs(
    broker_url: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_MAX_FILES", "1000")
    chance, tried = random.Random(11), Tried()
    small = [each for each in everything(made) if "bomb" not in each.name]
    for _, of_group in groupby(small, attrgetter("group")):
        tried.run(chance.sample(list(of_group), _N_OF_A_GROUP_IN_SLICE), tmp_path)
    tried.check()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_hostile_inputs(
    broker_url: str,
    made: Path,
    tmp_path: Path,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Some cases name the root or /tmp, whose size is this machine's.
    monkeypatch.setenv("RANKMILL_MAX_FILES", "20000")
    tried = Tried()
    tried.run(everything(made), tmp_path)
    redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://")).flushall()
    worker, log = start_worker(), tmp_path / "worker-one.log"
    wait_for(lambda: log.exists() and " ready." in log.read_text())
    tried.run(message_cases(log, 10), tmp_path)
    tried.report()
    tried.check()
    said = log.read_text()
    assert worker.poll() is None and said.count(" ready.") == 1 and "Traceback" not in said


class Tried:
    """The hostile inputs that were tried, and how they ended.

    Attributes:
        counts: by the group of inputs, the number for each kind of ending.
        bad: each input that ended badly, with its last lines.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.bad: list[str] = []
        self._slowest = (0.0, "")

    def run(self, chosen: Iterable[Case], tmp_path: Path) -> None:
        """Run inputs; RANKMILL_TEST_HOSTILE chooses a group."""
        only = os.environ.get("RANKMILL_TEST_HOSTILE", "")
        for number, case in enumerate(each for each in chosen if each.group.startswith(only)):
            folder = tmp_path / f"{case.group}-{number}"
            folder.mkdir()
            end = ending(case.act, folder)
            self.counts.setdefault(case.group, Counter())[end.kind] += 1
            self._slowest = max(self._slowest, (end.seconds, f"{case.group}: {case.name}"))
            if end.kind in BAD:
                self.bad.append(f"{case.group}: {case.name}: {end.kind}\n{end.text}")
                print(self.bad[-1])
            shutil.rmtree(folder, ignore_errors=True)

    def report(self) -> None:
        """Print the table, and write it to the page that RANKMILL_HOSTILE_TABLE names."""
        total = Counter(chain.from_iterable(each.elements() for each in self.counts.values()))
        rows = [
            "".join(f"| {cell} " for cell in (group, found.total(), *(found[k] for k in KINDS)))
            for group, found in {**self.counts, "all": total}.items()
        ]
        text = "\n".join((_HEADER, *(f"{row}|" for row in rows))) + "\n"
        print(f"\n{text}\nslowest: {self._slowest[0]:.1f} s, {self._slowest[1]}")
        target = os.environ.get("RANKMILL_HOSTILE_TABLE")
        if target:
            page = Path(target)
            page.write_text(page.read_text().partition(_HEADER)[0] + text)

    def check(self) -> None:
        """Check that none ended badly."""
        assert self.counts and not self.bad, "\n".join([f"{len(self.bad)} ended badly", *self.bad])
