"""The check of a host: what is wrong, and whether a worker can do any work there."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankmill.ledger.jobs import Ledger
from rankmill.settings import Settings, settings
from worker.fitness import check, has_fit_others


def checked(**values: object) -> tuple[str, bool]:
    problems, is_useless = check(Settings(**values), scores=True)
    return "; ".join(problems), is_useless


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("here", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_fit_host_has_no_problem_and_keeps_no_litter(folders: Path) -> None:
    assert checked(allowed_prefixes=str(folders / "here"), scratch=str(folders)) == ("", False)
    assert list((folders / "here").iterdir()) == []


def test_a_host_without_a_prefix_has_a_problem_and_without_any_is_useless(folders: Path) -> None:
    away, here = folders / "away", folders / "here"
    assert checked(allowed_prefixes=f"{away},{here}") == (
        f"{away} is not there; is it mounted?",
        False,
    )
    assert checked(allowed_prefixes=str(away))[1]
    assert not away.exists()


def test_a_host_needs_a_place_to_write_to(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    problem, is_useless = checked(allowed_prefixes=str(folders / "here"))
    assert "can be written to" in problem and is_useless


def test_a_host_without_scratch_space_is_useless(folders: Path) -> None:
    problem, is_useless = checked(scratch=str(folders / "gone"))
    assert problem.startswith(f"scratch folder {folders / 'gone'}: No such file") and is_useless


def test_models_that_are_not_here_are_named(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_MODELS", str(folders))
    settings.cache_clear()
    names = "owner/model,null,owner/*"
    problem, is_useless = checked(allowed_models=names, models=str(folders))
    assert "owner/model" in problem and not is_useless
    assert checked(allowed_models="owner/model", models=str(folders))[1]
    assert check(Settings(allowed_models="owner/model", models=folders), scores=False)[0] == []
    settings.cache_clear()


def test_a_worker_is_not_held_back_for_others_that_are_unfit(ledger: Ledger) -> None:
    assert not has_fit_others(["rankmill.score"])
    ledger.workers.seen("a", ["rankmill.score"])
    assert has_fit_others(["rankmill.score"])
    ledger.declines.note_unfit("a", "scratch folder /tmp: no space", ledger.now())
    assert not has_fit_others(["rankmill.score"])
