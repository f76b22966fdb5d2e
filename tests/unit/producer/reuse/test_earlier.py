"""An earlier output is found, or refused in one line before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from producer.jobs.check import check
from producer.reuse.earlier import Earlier
from rankmill.contract.job import JobSpec
from rankmill.errors import InputError
from tests.support.inputs import control, pairs
from tests.support.reused import done, job_of


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    done(job_of(pairs(4, 5), tmp_path / "one", "null", for_reuse=True, shard_pairs=10))
    return tmp_path / "one/out"


def job(folder: Path, reuse_from: object, **options: Any) -> JobSpec:
    return job_of(pairs(4, 5), folder, "null", reuse_from=str(reuse_from), **options)


def refusal(folder: Path, reuse_from: object) -> str:
    with pytest.raises(InputError) as error:
        check(job(folder, reuse_from))
    assert not (folder / "out").exists()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_folder_without_a_finished_job_is_refused(tmp_path: Path, earlier: Path) -> None:
    assert "no job was submitted to this folder" in refusal(tmp_path / "two", tmp_path / "nothing")
    (earlier / "_SUCCESS").unlink()
    assert "only a success is reused" in refusal(tmp_path / "two", earlier)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_document_tokens": 9}, "differs in max_document_tokens (None then, 9 now)"),
        ({"long_docs": "max-passage"}, "differs in long_docs (truncate then, max-passage now)"),
    ],
)
def test_texts_that_were_cut_in_another_way_share_no_scores(
    tmp_path: Path, earlier: Path, options: dict[str, Any], reason: str
) -> None:
    spec = job_of(pairs(4, 5), tmp_path / "two", "demo", reuse_from=str(earlier), **options)
    checked = check(spec)
    assert reason in (checked.record.no_reuse or "") and not checked.record.prepares
    assert checked.plan is not None


@pytest.mark.parametrize("damage", ["missing", "truncated", "shorter", "gone"])
def test_damaged_scores_are_refused(tmp_path: Path, earlier: Path, damage: str) -> None:
    scores = control(earlier) / "scores"
    first, second = sorted(scores.iterdir())
    if damage == "missing":
        second.unlink()
        assert "damaged: part-00001.parquet is missing in" in refusal(tmp_path / "two", earlier)
    elif damage == "truncated":
        second.write_bytes(second.read_bytes()[:100])
        assert "part-00001.parquet: truncated or damaged" in refusal(tmp_path / "two", earlier)
    elif damage == "shorter":
        done(job_of(pairs(1, 5), tmp_path / "three", "null", for_reuse=True))
        second.write_bytes((tmp_path / "three/_rankmill/out/scores" / first.name).read_bytes())
        assert "has 15 rows, not 20" in refusal(tmp_path / "two", earlier)
    else:
        first.unlink()
        second.unlink()
        assert "no such file" in refusal(tmp_path / "two", earlier)


def test_an_output_with_neither_hashes_nor_texts_is_refused(tmp_path: Path) -> None:
    done(job_of(pairs(2, 3), tmp_path / "one", "null"))
    message = refusal(tmp_path / "two", tmp_path / "one/out")
    assert message.endswith(
        "kept neither hashes nor all texts of its pairs; run it again with --for-reuse"
    )


def test_the_output_itself_is_refused(tmp_path: Path, earlier: Path) -> None:
    with pytest.raises(InputError, match="that is the output itself"):
        check(job(tmp_path / "one", earlier))


def test_a_folder_of_a_schedule_names_its_latest_success(tmp_path: Path, earlier: Path) -> None:
    pointer = tmp_path / "latest.json"
    pointer.write_text(json.dumps({"output_uri": str(earlier), "schedule": "nightly"}))
    for given in (tmp_path, "latest"):
        checked = check(job(tmp_path / "two", given, output_uri=str(tmp_path / "2026/11/21")))
        assert checked.record.spec.reuse_from == str(earlier)
        assert checked.record.prepares and checked.plan is None
    pointer.write_text("[]")
    assert "latest.json: no JSON with an output_uri" in refusal(tmp_path / "two", tmp_path)


def test_latest_never_fails_a_job(tmp_path: Path, earlier: Path) -> None:
    """The first night has no earlier output, and a damaged one must not fail the next."""
    spec = job(tmp_path / "two", "latest", output_uri=str(tmp_path / "runs/two"))
    first = done(spec)
    assert first.reuse and (first.reuse.n_reused, first.reuse.n_new) == (0, 20)
    assert first.reuse.refused and "there is no earlier success" in first.reuse.refused
    (tmp_path / "runs/latest.json").write_text(json.dumps({"output_uri": str(earlier)}))
    (earlier / "_SUCCESS").unlink()
    checked = check(spec.model_copy(update={"output_uri": str(tmp_path / "runs/three")}))
    assert checked.plan is not None and not checked.record.prepares
    assert "only a success is reused" in (checked.record.no_reuse or "")


def test_scores_that_change_after_the_check_are_noticed(earlier: Path) -> None:
    opened = Earlier.open(str(earlier))
    file = sorted((control(earlier) / "scores").iterdir())[0]
    content = bytearray(file.read_bytes())
    content[40:60] = b"\xff" * 20
    file.write_bytes(content)
    with pytest.raises(InputError, match="changed or was removed"):
        list(opened.tables())
    with pytest.raises(InputError, match="row group 0 cannot be read"):
        list(Earlier.open(str(earlier)).tables())
