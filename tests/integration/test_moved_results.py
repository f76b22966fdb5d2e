"""A result that was removed, changed or moved is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.jobs.control import resume
from producer.jobs.handle import JobHandle, find_job
from producer.jobs.submit import submit
from producer.quality.rankings import finished_job
from rankmill.contract.job_state import JobState
from rankmill.errors import InputError, JobUnknown, OutputTaken
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Output
from rankmill.report import write_report
from tests.support.finished import work_off
from tests.support.inputs import control, everything_under, pairs, part_bytes, write


@pytest.fixture
def folder(tmp_path: Path, ledger: Ledger) -> Iterator[Path]:
    write(pairs(6, 7), tmp_path / "in.parquet", row_group_size=7)
    assert work_off(submitted(tmp_path)) == [0, 1, 2]
    assert find_job(str(tmp_path / "out")).status().state is JobState.SUCCEEDED
    return tmp_path


def submitted(folder: Path, **options: Any) -> JobHandle:
    values = {"model_id": "null", "shard_pairs": 14, **options}
    return submit(folder / "in.parquet", folder / "out", **values)


def test_the_output_holds_parts_alone_also_after_a_crash(folder: Path) -> None:
    before = part_bytes(folder / "out")
    (folder / "out" / "_SUCCESS").unlink()
    shutil.rmtree(control(folder / "out") / "shards")
    for place in (folder / "out", control(folder / "out"), control(folder / "out") / "scores"):
        place.mkdir(exist_ok=True)
        (place / ".part-00000.parquet.1.rankmill-tmp").write_bytes(b"half")
    (folder / "out" / "part-00009.parquet").write_bytes(b"of a plan before")
    handle = find_job(str(folder / "out"))
    handle.ledger.redis.flushall()
    resume(handle)
    assert work_off(handle) == [0, 1, 2]
    assert everything_under(folder / "out") == ["_SUCCESS", *before]
    assert part_bytes(folder / "out") == before
    assert not list(folder.rglob("*.rankmill-tmp"))


@pytest.mark.parametrize("what", ["all", "parts", "one"])
def test_a_removed_result_is_scored_again(folder: Path, what: str) -> None:
    before = part_bytes(folder / "out")
    if what == "all":
        shutil.rmtree(folder / "out")
    for path in [*folder.glob("out/part-*")][: 1 if what == "one" else None]:
        path.unlink()
    status = find_job(str(folder / "out")).status()
    assert status.state is JobState.FAILED and "removed from" in status.message
    with pytest.raises(InputError, match="removed from"):
        finished_job(Output(str(folder / "out")))

    handle = submitted(folder)
    n_lost = 1 if what == "one" else 3
    assert not Output(handle.output.uri).is_success()
    assert len(work_off(handle)) == n_lost
    assert part_bytes(folder / "out") == before
    assert find_job(str(folder / "out")).status().state is JobState.SUCCEEDED


def test_a_removed_result_is_resumed(folder: Path) -> None:
    before = part_bytes(folder / "out")
    shutil.rmtree(folder / "out")
    handle = find_job(str(folder / "out"))
    resume(handle)
    assert work_off(handle) == [0, 1, 2]
    assert part_bytes(folder / "out") == before


def test_another_job_takes_the_place_of_a_removed_result(folder: Path) -> None:
    [first, *others] = sorted(folder.glob("out/part-*"))
    for path in others:
        path.unlink()
    with pytest.raises(OutputTaken, match="another job"):
        submitted(folder, top_k=2)
    first.unlink()
    work_off(submitted(folder, top_k=2))
    assert find_job(str(folder / "out")).status().state is JobState.SUCCEEDED
    assert not list(control(folder / "out").rglob("part-*"))


def test_a_part_of_another_job_is_not_replaced_silently(folder: Path) -> None:
    path = folder / "out" / "part-00001.parquet"
    path.write_bytes(b"another's")
    with pytest.raises(OutputTaken, match=r"part-00001\.parquet is not the part .* --overwrite"):
        submitted(folder)
    assert path.read_bytes() == b"another's"
    path.unlink()
    assert work_off(submitted(folder)) == [1]


def test_a_result_without_its_control_folder_is_named(folder: Path) -> None:
    (folder / "out").rename(folder / "moved")
    for act in (
        lambda: find_job(str(folder / "moved")),
        lambda: Output(str(folder / "moved")).load_job(),
        lambda: finished_job(Output(str(folder / "moved"))),
        lambda: write_report(Output(str(folder / "moved"))),
    ):
        with pytest.raises(JobUnknown, match=f"control folder {folder}/_rankmill/moved is missing"):
            act()
    with pytest.raises(InputError, match="_rankmill/moved is missing"):
        submit(
            folder / "in.parquet",
            folder / "new",
            model_id="null",
            reuse_from=str(folder / "moved"),
        )
    with pytest.raises(OutputTaken, match="holds other files"):
        submit(folder / "in.parquet", folder / "moved", model_id="null", overwrite=True)


def test_a_result_moved_with_its_control_folder_is_read_there(folder: Path) -> None:
    there = folder / "else" / "name"
    control(there).parent.mkdir(parents=True)
    control(folder / "out").rename(control(there))
    (folder / "out").rename(there)
    handle = find_job(str(there))
    status = handle.status()
    assert status.state is JobState.SUCCEEDED and status.control_uri == str(control(there))
    assert finished_job(Output(str(there))).output.uri == str(there)
    assert write_report(Output(str(there))) == str(control(there) / "report.html")


def test_an_overwritten_result_leaves_no_control_folder_behind(folder: Path) -> None:
    cleanup.remove_result(Output(str(folder / "out")))
    assert everything_under(folder) == ["in.parquet", "out"]


def test_control_folders_of_outputs_in_an_output_are_foreign(folder: Path) -> None:
    """They are there if a folder of outputs is given as an output."""
    inner = control(folder / "new" / "inner")
    inner.mkdir(parents=True)
    (inner / "job.json").write_text("{}")
    with pytest.raises(OutputTaken, match=r"holds other files \(_rankmill\)"):
        submit(folder / "in.parquet", folder / "new", model_id="null", overwrite=True)
    assert (inner / "job.json").exists()
