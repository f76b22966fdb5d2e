"""Shards that run in turn: each is published while the next is scored, and none is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rankmill.errors import InputError, StorageRefused
from rankmill.output.output import Job
from tests.support.inputs import everything_under, pairs, read_output
from tests.support.shards import planned
from worker import models
from worker.shard import run
from worker.shard.run import run_shards
from worker.shard.score import ShardWork

N_SHARDS = 4


def job_of(folder: Path, **options: object) -> Job:
    job = planned(pairs(8, 5), folder, Path("null"), shard_pairs=10, **options)
    assert job.plan.n_shards == N_SHARDS
    return job


def test_a_shard_is_published_while_the_next_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path)
    began = [threading.Event() for _ in range(N_SHARDS + 1)]
    began[N_SHARDS].set()
    write_part, score_rows = run.write_part, run.score_rows

    def write_late(job: Job, shard_index: int, *rest: object) -> object:
        assert began[shard_index + 1].wait(60)
        return write_part(job, shard_index, *rest)

    def score_noted(job: Job, shard: object, *rest: object) -> object:
        began[shard.shard_index].set()
        return score_rows(job, shard, *rest)

    monkeypatch.setattr(run, "write_part", write_late)
    monkeypatch.setattr(run, "score_rows", score_noted)
    work = ShardWork(models.load(job.spec), "test", 8)
    reports = list(run_shards(job, map(job.shard, range(N_SHARDS)), work))
    assert [report.shard_index for report in reports] == [0, 1, 2, 3]
    assert sum(report.n_written for report in reports) == 40
    assert len(read_output(job.output.uri)) == 40


def test_no_shard_begins_after_one_could_not_be_published(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    Path(job.output.part_uri(1)).mkdir(parents=True)
    committed, scored = [], []
    work = ShardWork(models.load(job.spec), "test", 8, progress=lambda n, _: scored.append(n))
    with pytest.raises(StorageRefused, match="part-00001"):
        for report in run_shards(job, map(job.shard, range(N_SHARDS)), work):
            committed.append(report.shard_index)
    assert committed == [0] and job.output.reported_shards() == {0}
    assert sum(n == 10 for n in scored) == 3  # the third was being scored meanwhile
    assert not [path for path in everything_under(tmp_path) if path.endswith(".tmp")]


def test_a_shard_scored_before_one_that_fails_is_committed(tmp_path: Path) -> None:
    rows = pairs(8, 5)
    rows[29] = rows[26]  # a document twice in a query of the third shard
    source_folder = tmp_path / "with spaces"
    source_folder.mkdir()
    job = planned(rows, source_folder, Path("null"), shard_pairs=10)
    work = ShardWork(models.load(job.spec), "test", 8)
    with pytest.raises(InputError, match="twice or more"):
        list(run_shards(job, map(job.shard, range(N_SHARDS)), work))
    assert job.output.reported_shards() == {0, 1}
