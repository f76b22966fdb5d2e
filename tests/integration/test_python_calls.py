"""Python's calls on jobs: run one here, wait for it, read it, show it, measure it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer import Job, JobHandle, diff, estimate, evaluate, find_job, run, submit
from rankmill.contract.job_state import JobState
from rankmill.errors import InputError, JobUnknown, RankmillError
from rankmill.settings import settings
from tests.support.inputs import pairs, write

ROWS = pairs(5, 4)
NO_IDS = pa.table({"x": [1]})
QRELS = {"q0001": {"d1-2": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calls")
    write(ROWS, path / "in.parquet")
    return path


@pytest.fixture(scope="module")
def job(folder: Path) -> Iterator[Job]:
    """Run a job inside a running event loop, as a notebook does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKMILL_THREADS", "1")
        settings.cache_clear()

        async def cell() -> Job:
            options: dict[str, Any] = {"model": "null", "top_k": 3, "shard_pairs": 8}
            return run(folder / "in.parquet", folder / "out", device="cpu", **options)

        yield asyncio.run(cell())
    settings.cache_clear()


def test_a_run_gives_its_table_report_and_status_in_a_notebook(job: Job, folder: Path) -> None:
    assert job.status().state is JobState.SUCCEEDED and job.output.uri == str(folder / "out")
    table = job.table()
    assert table.num_rows == 15 and table["rank"].to_pylist() == [1, 2, 3] * 5
    assert job.table(["doc_id", "score"]).column_names == ["doc_id", "score"]
    with pytest.raises(InputError, match="no column 'scores'; it has query_id, "):
        job.table(["scores"])
    assert "device hours at 3" in Path(job.report(price_per_hour=3)).read_text()
    shown = job._repr_html_()
    assert job.job_id in shown and "succeeded" in shown and str(folder) in shown
    assert settings().device != "cpu" or "RANKMILL_DEVICE" not in settings().model_fields_set


def test_a_finished_job_is_found_again_and_waiting_for_it_ends_at_once(
    job: Job, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_job(str(folder / "out"))
    assert isinstance(found, Job) and isinstance(found, JobHandle)
    assert found.job_id == job.job_id

    async def cell() -> JobState:
        return found.wait(progress=True).state

    assert asyncio.run(cell()) is JobState.SUCCEEDED
    assert "20/20" in capsys.readouterr().err
    with pytest.raises(JobUnknown, match="no job was submitted"):
        find_job(str(folder / "none"))


def test_jobs_are_measured_by_handle_or_place_and_by_a_dict_or_a_file(
    job: Job, folder: Path
) -> None:
    (folder / "a.qrels").write_text("q0001 0 d1-2 1\n")
    by_handle = evaluate(job, QRELS, recall_at=[2])
    assert by_handle == evaluate(folder / "out", folder / "a.qrels", recall_at=[2])
    assert by_handle.n_queries == 1
    table = pq.read_table(folder / "in.parquet")
    of_table = evaluate(job.table(), QRELS, before=table, recall_at=[2])
    assert of_table.comparisons == by_handle.comparisons and of_table.n_in_parts == 1
    scored = table.append_column("score", pa.array(range(len(table))))
    by_score = evaluate(job.table(), QRELS, before=scored, recall_at=[2])
    assert (by_score.before_by, by_score.comparisons[1].before) == ("score", 1 / 2)
    assert by_handle == evaluate(job, QRELS, recall_at=2)
    drift = diff(job, folder / "out", k=2, fail_if="churn@3>0.5", qrels=QRELS)
    assert drift.gate is not None and drift.gate.passed and drift.ndcg
    found = estimate(folder / "in.parquet", model="null", pairs_per_s=10.0)
    assert found.n_rows == 20 and found.pace is not None


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda where: run(where, where, topk=3), r"run\(\) has no argument topk.*top_k"),
        (lambda where: run(where, where, overwrit=True), "did you mean overwrite"),
        (lambda where: submit(where, where, max_length=3), r"submit\(\): max_length 3 "),
        (lambda where: estimate(where, samples=3), "did you mean sample"),
        (lambda where: estimate(where, sample=0), "sample 0 must be 1 or more"),
        (lambda where: run(where, where, device="gpu0"), "device 'gpu0' is not a device"),
        (lambda where: run(where, where.parent / "x", model="null", top_k="a"), "top_k 'a'"),
        (lambda where: evaluate(where.parent / "out", "absent.qrels"), "absent.qrels"),
        (lambda where: evaluate(pa.table({"x": [1]}), QRELS), "needs before: the table"),
        (
            lambda where: evaluate(*[pa.table({"x": [1]}), QRELS], before=pa.table({"x": [1]})),
            "query_id",
        ),
        (lambda where: run(where, where, model="null"), "is a file"),
        (lambda where: estimate(where, sample="x"), "sample 'x' must be 1 or more"),
        (lambda where: evaluate(where.parent / "out", QRELS, recall_at="10"), "recall_at '10': a"),
        (lambda where: evaluate(where.parent / "out", QRELS, recall_at=None), "recall_at None: a"),
        (lambda where: evaluate(where.parent / "out", [1]), "grades by document id .* not list"),
        (lambda where: evaluate(where.parent / "out", None), "grades by document id .* NoneType"),
        (lambda where: diff(where.parent / "out", where.parent / "out", k=[1.5]), r"k \[1.5\]: a"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(
    call: Any, line: str, job: Job, folder: Path
) -> None:
    with pytest.raises(RankmillError, match=line) as refused:
        call(folder / "in.parquet")
    assert "--" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_submitted_job_can_be_waited_for_in_bounds(
    broker_url: str, folder: Path, tmp_path: Path
) -> None:
    waiting = submit(folder / "in.parquet", tmp_path / "out", model="null")
    with pytest.raises(TimeoutError, match="waiting for a worker"):
        waiting.wait(timeout_s=0.1)
    assert "waiting for a worker" in waiting._repr_html_()
    with pytest.raises(InputError, match="can be read once it has succeeded"):
        waiting.table()
