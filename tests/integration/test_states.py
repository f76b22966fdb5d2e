"""The state in status, watch, jobs and --json is right, with and without a Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from producer.jobs.check import plan_job
from producer.jobs.control import cancel, resume, retry_rejects
from producer.jobs.handle import JobHandle, find_job
from producer.jobs.status import status_from_storage
from producer.jobs.submit import submit
from rankmill.contract.job import JobSpec
from rankmill.dispatch import Dispatcher
from rankmill.errors import BrokerUnavailable, InputError, JobFailed
from rankmill.ledger.jobs import Ledger
from rankmill.output.local_run import Hold
from rankmill.output.output import Output
from tests.conftest import StartWorker, forget_settings
from tests.support.command import called
from tests.support.inputs import pairs, part_bytes, read_output, read_rejected, wait_for, write
from tests.support.scored import scored
from worker.finalize import finalize

SLOW = ("--model", "null:80", "--shard-pairs", "100")


def environment(**changes: str) -> dict[str, str]:
    """Return an environment without a Redis."""
    given = {**os.environ, "RANKMILL_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **changes}
    return {
        name: value for name, value in given.items() if name != "RANKMILL_BROKER_URL" or changes
    }


def command(*arguments: object) -> list[str]:
    hearing = ["env", "--default-signal=INT"]  # what a shell starts in the background ignores it
    return [*hearing, sys.executable, "-m", "producer.cli", *map(str, arguments)]


def rankmill(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    return called(*arguments, variables=environment(**changes))


def status(output: Path, **changes: str) -> dict[str, Any]:
    shown = rankmill("status", output, "--json", **changes)
    assert shown.returncode == 0, shown.stderr
    facts: dict[str, Any] = json.loads(shown.stdout)
    return facts


def listed() -> dict[str, dict[str, Any]]:
    """Return the jobs that `jobs` lists, by output."""
    shown = rankmill("jobs", "--json")
    assert shown.returncode == 0, shown.stderr
    return {each["output_uri"]: each for each in json.loads(shown.stdout)}


def start_run(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a run of 3,000 pairs, and yield it when it has scored some."""
    write(pairs(120, 25), folder / "in.parquet")
    output = folder / "out"
    process = subprocess.Popen(
        command("run", folder / "in.parquet", output, *SLOW),
        env=environment(),
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(Output(str(output)).reported_shards()) >= 2)
    return process, output


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_a_run_whose_process_has_gone_is_interrupted_and_resumes_without_a_redis(
    tmp_path: Path, how: signal.Signals
) -> None:
    process, output = start_run(tmp_path)
    assert listed()[str(output)]["state"] == "running"
    seen = status(output)
    assert seen["state"] == "running" and seen["exit_code"] is None, seen
    assert seen["model_id"] == "null:80" and seen["submitted_at"] and seen["started_at"]
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-how if how is signal.SIGKILL else 130)
    seen = status(output)
    assert seen["state"] == "interrupted" and seen["exit_code"] == 1
    assert "rankmill resume" in seen["reason"] and seen["ended_at"] and seen["progress_at"]
    watched = rankmill("watch", output)
    assert watched.returncode == 1 and "interrupted" in watched.stderr, watched.stderr
    assert "continues on this machine" not in watched.stderr
    early = rankmill("retry-rejects", output)
    assert early.returncode == 2 and "interrupted" in early.stderr
    if how is not signal.SIGKILL:
        return
    assert listed()[str(output)]["state"] == "interrupted"
    table = rankmill("jobs")
    assert str(output) in table.stdout and "runs of this machine" in table.stderr
    away = rankmill("jobs", "--json", RANKMILL_BROKER_URL="redis://127.0.0.1:9/0")
    assert away.returncode == 1 and "Redis does not answer" in away.stderr
    assert json.loads(away.stdout)[0]["output_uri"] == str(output)
    kept = part_bytes(output)
    resumed = rankmill("resume", output)
    assert resumed.returncode == 0, resumed.stderr
    assert "on this machine" in resumed.stderr and "scored" in resumed.stdout
    now = part_bytes(output)
    assert {name: now[name] for name in kept} == kept and len(read_output(output)) == 3000
    assert started and psutil.wait_procs(started, timeout=40)[1] == []
    assert (status(output)["state"], status(output)["exit_code"]) == ("succeeded", 0)


def test_another_process_can_cancel_the_one_run_of_an_output(tmp_path: Path) -> None:
    process, output = start_run(tmp_path)
    for again in (
        ("run", tmp_path / "in.parquet", output, *SLOW),
        ("run", tmp_path / "in.parquet", output, *SLOW, "--overwrite"),
        ("run", tmp_path / "in.parquet", output, "--model", "null", "--overwrite"),
        ("resume", output),
    ):
        refused = rankmill(*again)
        assert refused.returncode == 2, refused.stderr
        assert f"process {process.pid} on" in refused.stderr or "is being run" in refused.stderr
    cancelled = rankmill("cancel", output)
    assert cancelled.returncode == 0, cancelled.stderr
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and b"cancelled" in said
    assert status(output)["state"] == "cancelled"
    assert rankmill("cancel", output).returncode == 2


def test_an_interrupted_run_is_cancelled_without_a_redis(tmp_path: Path) -> None:
    process, output = start_run(tmp_path)
    process.kill()
    process.communicate()
    assert rankmill("cancel", output).returncode == 0
    seen = status(output)
    assert seen["state"] == "cancelled" and seen["ended_at"]


def test_rejects_are_retried_without_a_redis(tmp_path: Path) -> None:
    rows = pairs(2, 5)
    rows[3]["document"] = ""
    write(rows, tmp_path / "in.parquet")
    output = tmp_path / "out"
    job = ("run", tmp_path / "in.parquet", output, "--model", "null", "--max-reject-rate", 0.2)
    assert rankmill(*job).returncode == 0
    again = rankmill("retry-rejects", output)
    assert again.returncode == 0, again.stderr
    assert status(output)["state"] == "succeeded with rejects"
    assert len(read_output(output)) == 9 and len(read_rejected(output)) == 1
    before = part_bytes(output), (output / "_SUCCESS").stat().st_mtime_ns
    away = rankmill("retry-rejects", output, "--cluster")
    assert away.returncode == 1 and "Redis does not answer" in away.stderr
    assert (part_bytes(output), (output / "_SUCCESS").stat().st_mtime_ns) == before


def test_python_resumes_and_cancels_without_a_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs(3, 5)
    rows[3]["document"] = ""
    write(rows, tmp_path / "in.parquet")
    monkeypatch.delenv("RANKMILL_BROKER_URL", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    forget_settings()
    values = {"input_uri": str(tmp_path / "in.parquet"), "output_uri": str(tmp_path / "out")}
    spec = JobSpec(**values, model_id="null", shard_pairs=5, max_reject_rate=0.1)
    job = plan_job(spec)
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    with Hold() as hold:
        hold.take(job.output, job.job_id, "redis+socket:///gone")
    handle = find_job(job.output.uri)
    assert handle.status().state == "interrupted"
    cancel(handle)
    assert handle.status().state == "cancelled"
    resume(handle)
    assert "RANKMILL_BROKER_URL" not in os.environ
    assert handle.status().state == "succeeded with rejects"
    assert len(read_output(tmp_path / "out")) == 14
    with pytest.raises(JobFailed, match="1 of 15 rows rejected"):
        resume(handle, max_reject_rate=0)
    first = handle.output.read_manifest()
    assert retry_rejects(handle) == 1
    again = handle.output.read_manifest()
    assert first and again and again.finished_at > first.finished_at
    with pytest.raises(BrokerUnavailable):
        retry_rejects(handle, local=False)
    assert handle.status().state == "succeeded with rejects"


def test_a_job_without_a_worker_has_the_state_waiting(
    tmp_path: Path, broker_url: str, start_worker: StartWorker
) -> None:
    source = write(pairs(6, 5), tmp_path / "in.parquet")
    folder = tmp_path / ("a long name for an output " * 5)
    job = submit(source, folder, model_id="null", shard_pairs=5)
    seen = job.status()
    assert seen.state == "waiting for a worker" and "rankmill.score" in seen.reason
    assert seen.exit_code is None and seen.submitted_at is not None and seen.model_id == "null"
    [listed] = json.loads(rankmill("jobs", "--json", RANKMILL_BROKER_URL=broker_url).stdout)
    assert listed["state"] == "waiting for a worker"
    piped = rankmill("jobs", RANKMILL_BROKER_URL=broker_url).stdout
    assert str(folder) in piped and "no live worker" in piped and "null" in piped
    watching = subprocess.Popen(
        command("watch", folder),
        stderr=subprocess.PIPE,
        env=environment(RANKMILL_BROKER_URL=broker_url),
        text=True,
    )
    assert watching.stderr is not None
    first = watching.stderr.readline()
    assert re.match(r"waiting for a worker  0:00:\d\d  no live worker takes rankmill.score", first)
    start_worker()
    _, said = watching.communicate(timeout=90)
    assert watching.returncode == 0, said
    assert said.count("waiting for a worker") == 0  # once, and again only if something changes
    seen = job.status()
    assert (seen.state, seen.exit_code) == ("succeeded", 0)
    assert seen.ended_at is not None and seen.pairs_per_s is not None
    [listed] = json.loads(rankmill("jobs", "--json", RANKMILL_BROKER_URL=broker_url).stdout)
    assert (listed["state"], listed["exit_code"]) == ("succeeded", 0) and listed["ended_at"]


def test_a_worker_of_other_queues_does_not_count(tmp_path: Path, ledger: Ledger) -> None:
    source = write(pairs(2, 5), tmp_path / "in.parquet")
    job = submit(source, tmp_path / "out", model_id="null")
    ledger.workers.seen("control@here", ["rankmill.control"], scores=False)
    assert job.status().state == "waiting for a worker"
    ledger.workers.seen("one@here", ["rankmill.control", "rankmill.score"])
    assert job.status().state == "running"


def test_without_redis_the_state_comes_from_storage(
    tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(pairs(6, 5), tmp_path / "in.parquet")
    submit(source, tmp_path / "out", model_id="null", shard_pairs=5)
    seen = status(tmp_path / "out", RANKMILL_BROKER_URL="redis://127.0.0.1:9/0")
    assert seen["state"] == "broker away" and seen["n_shards"] == 6 and seen["exit_code"] is None
    assert "Redis does not answer" in seen["reason"] and "storage says running" in seen["reason"]
    assert seen["model_id"] == "null" and seen["submitted_at"]
    refused = rankmill("cancel", tmp_path / "out", RANKMILL_BROKER_URL="redis://127.0.0.1:9/0")
    assert refused.returncode == 1 and "Redis does not answer" in refused.stderr
    assert status(tmp_path / "out", RANKMILL_BROKER_URL=broker_url)["state"] != "cancelled"
    Output(str(tmp_path / "out")).mark_success()
    seen = status(tmp_path / "out", RANKMILL_BROKER_URL="redis://127.0.0.1:9/0")
    assert (seen["state"], seen["exit_code"]) == ("succeeded", 0)


def test_a_python_handle_has_the_same_state(tmp_path: Path, ledger: Ledger) -> None:
    source = write(pairs(2, 5), tmp_path / "in.parquet")
    submit(source, tmp_path / "out", model_id="null")
    handle: JobHandle = find_job(str(tmp_path / "out"))
    assert handle.status().state == "waiting for a worker"
    ledger.redis.flushall()
    seen = handle.status()
    assert seen.state == "running" and "Redis does not know it" in seen.reason


def test_a_finished_job_has_the_same_status_without_its_reports(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    done = scored(tmp_path)
    dispatcher.start(done)
    finalize(dispatcher, done.job_id, done.output.uri)
    short = status_from_storage(done.output)
    shards = Path(done.output.control_file("shards"))
    shards.rename(shards.with_name("away"))
    assert status_from_storage(done.output) == short
    shards.with_name("away").rename(shards)
    Path(done.output.control_file("times.json")).unlink()  # as an earlier release leaves it
    assert status_from_storage(done.output) == short


def test_a_finished_job_that_has_lost_a_part_is_counted_without_its_reports(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    done = scored(tmp_path)
    dispatcher.start(done)
    finalize(dispatcher, done.job_id, done.output.uri)
    Path(done.output.part_uri(1)).unlink()
    damage_reports(done.output)
    lost = status_from_storage(done.output)
    assert (lost.state, lost.n_pairs_done, lost.scoring_s) == ("failed", 30, None)
    assert lost.reason.startswith("part-00001.parquet was removed")


def test_a_failed_job_is_counted_by_redis_as_by_its_reports(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    job = scored(tmp_path)
    job.output.forget_shard(2)
    dispatcher.start(job)
    ledger.redis.hset(f"rankmill:job:{job.job_id}:live", "2", "3 40")  # it has scored 3 pairs
    dispatcher.fail(job.record, JobFailed("too bad"), None)
    handle, exact = find_job(job.output.uri), {"started_at", "progress_at"}  # Redis has seconds
    by_reports = status_from_storage(job.output)
    damage_reports(job.output)
    by_redis = status_from_storage(job.output, ledger.counts(job.job_id))
    assert by_redis.model_dump(exclude=exact) == by_reports.model_dump(exclude=exact)
    assert by_redis.reason == "too bad" and by_redis.n_pairs_done == handle.status().n_pairs_done
    ledger.redis.hincrby(f"rankmill:job:{job.job_id}", "n_shards_done", -1)
    with pytest.raises(InputError):  # Redis lacks a report: all are read
        handle.status()


def damage_reports(output: Output) -> None:
    """Make every shard's report unreadable, so that reading one is an error."""
    for report in Path(output.control_file("shards")).iterdir():
        report.write_text("x")
