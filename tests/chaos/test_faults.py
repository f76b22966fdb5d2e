"""Inject the faults of a night: each job must end complete, correct and by itself.

`make test` runs the short form, `make test-chaos` everything and writes the table.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.jobs.control import cancel, resume
from producer.jobs.handle import JobHandle
from rankmill.errors import JobFailed
from rankmill.settings import CHECKOUT
from tests.chaos.stage import N_SHARDS, Outcome, Stage, watched_stage
from tests.support.inputs import everything_under, wait_for
from tests.support.refusals import REFUSALS, refusing
from tests.support.sentinels import watched_redis

FAULTS = CHECKOUT / "tests" / "faults"
RECOVERS_WITHIN_S = 60
REFUSES_S = 15.0

Fault = Callable[[Stage, JobHandle], None]


def kill_child(stage: Stage, job: JobHandle) -> None:
    os.kill(stage.child_of("a"), signal.SIGKILL)


def kill_worker(stage: Stage, job: JobHandle) -> None:
    """Kill a worker that is in the middle of a shard."""
    child, _ = stage.freeze_a_holder(job)
    group = os.getpgid(child)
    stage.kill_worker(next(name for name, each in stage.workers.items() if each.pid == group))


def kill_worker_a(stage: Stage, job: JobHandle) -> None:
    """Kill a worker at any moment."""
    stage.kill_worker("a")


def terminate_worker(stage: Stage, job: JobHandle) -> None:
    stage.workers.pop("a").terminate()


def quit_worker(stage: Stage, job: JobHandle) -> None:
    stage.workers.pop("a").send_signal(signal.SIGQUIT)


def restart_redis(stage: Stage, job: JobHandle) -> None:
    stage.redis.kill()
    stage.redis.wait()
    time.sleep(2)
    stage.start_redis()


def flush_redis(stage: Stage, job: JobHandle) -> None:
    stage.ledger.redis.flushall()


def cut_connections(stage: Stage, job: JobHandle) -> None:
    stage.ledger.redis.execute_command("CLIENT KILL TYPE normal SKIPME yes")


def freeze_worker(stage: Stage, job: JobHandle) -> None:
    """Freeze a worker past its claim, then let it go on: it must not publish its shard."""
    child, shard_index = stage.freeze_a_holder(job)
    wait_for(lambda: shard_index in job.output.reported_shards(), RECOVERS_WITHIN_S)
    part = Path(job.output.part_uri(shard_index))
    published = part.stat().st_mtime_ns
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: "the claim ran out" in stage.logs())
    assert part.stat().st_mtime_ns == published


SHORT = [kill_worker, restart_redis, cut_connections]
LONG = [kill_child, terminate_worker, quit_worker, flush_redis, freeze_worker]


def under_way(job: JobHandle) -> None:
    wait_for(lambda: len(job.output.reported_shards()) >= 5, within_s=120)
    assert len(job.output.reported_shards()) < N_SHARDS - 5, "the fault would come too late"


@pytest.mark.parametrize(
    "fault",
    [*SHORT, *(pytest.param(each, marks=pytest.mark.long) for each in LONG)],
    ids=lambda fault: fault.__name__,
)
def test_a_fault(
    fault: Callable[[Stage, JobHandle], None],
    three_workers: Stage,
    reference: Path,
    table: list[Outcome],
) -> None:
    job = three_workers.submit()
    under_way(job)
    hit = three_workers.about_to_break(job)
    fault(three_workers, job)
    name = fault.__name__.replace("_", " ")
    outcome = three_workers.wait_and_check(job, name, hit, reference)
    table.append(outcome)
    assert outcome.recovery_s < RECOVERS_WITHIN_S


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", REFUSALS)
def test_a_redis_that_refuses_commands(
    how: str, three_workers: Stage, reference: Path, table: list[Outcome]
) -> None:
    job = three_workers.submit()
    under_way(job)
    with refusing(three_workers.ledger.redis, how):
        time.sleep(REFUSES_S)
    hit = three_workers.about_to_break(job)
    assert all(worker.poll() is None for worker in three_workers.workers.values())
    name = f"Redis answers {how} for {REFUSES_S:.0f} s"
    outcome = three_workers.wait_and_check(job, name, hit, reference)
    table.append(outcome)
    assert outcome.recovery_s < RECOVERS_WITHIN_S


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["planned failover", "kill the primary"])
def test_a_failover_by_sentinels(
    how: str,
    tmp_path: Path,
    source: Path,
    reference: Path,
    table: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        watched_redis(Path(folder)) as watched,
        watched_stage(tmp_path, source, watched.environment, monkeypatch) as built,
    ):
        for name in ("a", "b", "c"):
            built.start_worker(name)
        job = built.submit()
        under_way(job)
        hit = built.about_to_break(job)
        watched.fail_over() if how == "planned failover" else watched.kill_primary()
        outcome = built.wait_and_check(job, f"Sentinel: {how}", hit, reference)
        assert all(worker.poll() is None for worker in built.workers.values())
    table.append(outcome)
    assert outcome.recovery_s < RECOVERS_WITHIN_S


@pytest.mark.long
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_storage_errors_at_each_step_of_a_write(
    call: str, empty_stage: Stage, reference: Path, table: list[Outcome]
) -> None:
    every_seventh = {"PYTHONPATH": str(FAULTS), "RANKMILL_TEST_FAILING_CALL": f"{call}:7"}
    empty_stage.worker_environment.update(every_seventh)
    for name in ("a", "b", "c"):
        empty_stage.start_worker(name)
    job = empty_stage.submit()
    hit = empty_stage.about_to_break(job)
    table.append(empty_stage.wait_and_check(job, f"I/O errors in {call}", hit, reference))
    assert "made to fail" in empty_stage.logs(), "no error was injected"


@pytest.mark.long
def test_a_disk_that_fills(
    three_workers: Stage, tmp_path: Path, reference: Path, table: list[Outcome]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], check=True)
    try:
        job = three_workers.submit(small / "out")
        hit = three_workers.about_to_break(job)
        with pytest.raises(JobFailed, match="disk is full"):
            job.wait(timeout_s=120)
        assert not [name for name in everything_under(small) if name.endswith("-tmp")]
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        resume(job)
        table.append(three_workers.wait_and_check(job, "disk full, then resume", hit, reference))
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.long
def test_a_submitter_whose_clock_is_an_hour_ahead(
    three_workers: Stage, reference: Path, table: list[Outcome]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(FAULTS), "RANKMILL_TEST_CLOCK_AHEAD_S": "3600"}
    code = "import sys; from pathlib import Path; from tests.chaos.stage import submit_to\n"
    code += "submit_to(Path(sys.argv[1]), Path(sys.argv[2]))"
    output = three_workers.folder / "out"
    command = [sys.executable, "-c", code, str(three_workers.source), str(output)]
    subprocess.run(command, check=True, env=environment)
    job = three_workers.submit()  # the same job: only a handle
    under_way(job)
    hit = three_workers.about_to_break(job)
    kill_worker(three_workers, job)
    outcome = three_workers.wait_and_check(job, "clock ahead, kill worker", hit, reference)
    table.append(outcome)
    assert outcome.recovery_s < RECOVERS_WITHIN_S


@pytest.mark.long
def test_two_resumes_at_once(three_workers: Stage, reference: Path, table: list[Outcome]) -> None:
    job = three_workers.submit()
    under_way(job)
    cancel(job)
    hit = three_workers.about_to_break(job)
    command = [sys.executable, "-m", "producer.cli", "resume", job.output.uri]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    table.append(three_workers.wait_and_check(job, "two resumes at once", hit, reference))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_random_mix(three_workers: Stage, reference: Path, table: list[Outcome]) -> None:
    seed = int(os.environ.get("RANKMILL_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"RANKMILL_CHAOS_SEED={seed}")
    rng = random.Random(seed)
    until = time.monotonic() + 180
    n_faults = 0
    outcomes: list[Outcome] = []
    for round_number in range(1000):
        if time.monotonic() > until:
            break
        job = three_workers.submit(three_workers.folder / f"out-{round_number}")
        hit = three_workers.about_to_break(job)
        for _ in range(rng.randint(1, 3)):
            time.sleep(rng.uniform(0.5, 4))
            fault = rng.choice([kill_child, kill_worker_a, restart_redis, flush_redis])
            fault(three_workers, job)
            n_faults += 1
            if "a" not in three_workers.workers:
                three_workers.start_worker("a")
            wait_for(lambda: _has_child(three_workers), 60)  # which the next fault may kill
        outcomes.append(three_workers.wait_and_check(job, "", hit, reference))
    table.append(
        Outcome(
            f"random mix: {n_faults} faults in {len(outcomes)} jobs, seed {seed}",
            max(outcome.recovery_s for outcome in outcomes),
            sum(outcome.wall_s for outcome in outcomes),
            sum(outcome.n_run_twice for outcome in outcomes),
            sum(outcome.n_lost for outcome in outcomes),
        )
    )


def _has_child(stage: Stage) -> bool:
    try:
        return stage.child_of("a") > 0
    except (IndexError, FileNotFoundError):
        return False
