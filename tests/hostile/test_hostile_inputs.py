"""A hostile input ends in success or in one line: it kills and hangs nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

import pytest

from tests.support.hostile import cases
from tests.support.hostile.bounded import BAD, KINDS, ending, preload
from tests.support.hostile.cases import Case

_N_OF_A_GROUP_IN_SLICE = 4


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
    cases.load(bert(folder / "model", num_labels=1))


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
        *cases.model_cases(made / "model", 20),
    ]


@pytest.mark.slow
def test_a_slice_of_the_hostile_inputs(
    broker_url: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_MAX_FILES", "1000")  # soon found when a case names the root
    chance = random.Random(11)
    small = [each for each in everything(made) if "bomb" not in each.name]
    run_all(
        chain.from_iterable(
            chance.sample(list(of_group), _N_OF_A_GROUP_IN_SLICE)
            for _, of_group in groupby(small, attrgetter("group"))
        ),
        tmp_path,
    )


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_all_hostile_inputs(broker_url: str, made: Path, tmp_path: Path) -> None:
    only = os.environ.get("RANKMILL_TEST_HOSTILE", "")
    chosen = [each for each in everything(made) if each.group.startswith(only)]
    run_all(chosen, tmp_path)


def run_all(chosen: Iterable[Case], tmp_path: Path) -> None:
    """Run the cases and print a table of their endings.

    Raises:
        AssertionError: a case ended badly; the message has each one's last lines.
    """
    counts: dict[str, Counter[str]] = {}
    bad, slowest = [], (0.0, "")
    for number, case in enumerate(chosen):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        end = ending(case.act, folder)
        counts.setdefault(case.group, Counter())[end.kind] += 1
        slowest = max(slowest, (end.seconds, f"{case.group}: {case.name}"))
        if end.kind in BAD:
            bad.append(f"--- {case.group}: {case.name}: {end.kind}\n{end.text}")
    total = Counter(chain.from_iterable(each.elements() for each in counts.values()))
    for group, found in {**counts, "all": total}.items():
        figures = ", ".join(f"{kind} {found[kind]}" for kind in KINDS)
        print(f"{group:>8} {found.total():>5}: {figures}")
    print(f"slowest: {slowest[0]:.1f} s, {slowest[1]}")
    assert not bad, f"{len(bad)} ended badly\n" + "\n".join(bad)
