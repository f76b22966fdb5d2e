"""A third node that cannot do the work, and workers that load their model slowly."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rankmill.broker import SCORE_QUEUE
from rankmill.settings import CHECKOUT, settings
from tests.chaos.stage import Outcome, Stage
from tests.support.inputs import wait_for
from tests.support.nodes import Nodes, missing, nodes, read_only
from worker.health import complaints
from worker.liveness.files import folder

STALL_S, LOAD_S = 10, 45

FAULTS: dict[str, Callable[[Nodes, Path], None]] = {
    "node without the mount": lambda started, shared: started.start("bad", missing(shared)),
    "node that mounts it read-only": lambda started, shared: started.start(
        "bad", read_only(shared)
    ),
    "node with a narrower prefix list": lambda started, shared: started.start(
        "bad", environment={"RANKMILL_ALLOWED_PREFIXES": "/srv"}
    ),
    "node that may not load the model": lambda started, shared: started.start(
        "bad", environment={"RANKMILL_ALLOWED_MODELS": "null"}
    ),
}


@pytest.fixture
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_node(
    fault: str, empty_stage: Stage, others: Nodes, reference: Path, table: list[Outcome]
) -> None:
    FAULTS[fault](others, empty_stage.folder)
    for name in ("a", "b"):
        empty_stage.start_worker(name)
    wait_for(lambda: len(empty_stage.ledger.workers.takers(SCORE_QUEUE)) == 3)
    job = empty_stage.submit()
    hit = empty_stage.about_to_break(job)
    table.append(empty_stage.wait_and_check(job, fault, hit, reference))
    assert "work declined, queue paused" in others.log("bad")
    # A node that may not load the model starts a shard before it declines it.
    assert others.log("bad").count("shard started") <= others.log("bad").count(" Declined(")
    assert others.log("bad").count("Retry in 0s") < 30


@pytest.mark.long
def test_a_node_that_gets_its_mount_back(
    empty_stage: Stage, others: Nodes, reference: Path, table: list[Outcome]
) -> None:
    others.start("bad", missing(empty_stage.folder))
    empty_stage.start_worker("a")
    wait_for(lambda: len(empty_stage.ledger.workers.takers(SCORE_QUEUE)) == 2)
    job = empty_stage.submit()
    wait_for(lambda: "work declined, queue paused" in others.log("bad"))
    hit = empty_stage.about_to_break(job)
    namespace = ["nsenter", "--mount", "--target", str(others.workers["bad"].pid)]
    subprocess.run([*namespace, "umount", str(empty_stage.folder)], check=True)
    table.append(empty_stage.wait_and_check(job, "node gets its mount back", hit, reference))
    assert "shard started" in others.log("bad")


@pytest.mark.long
def test_workers_that_load_for_long(
    empty_stage: Stage, reference: Path, table: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes four times as long as a stall, as 15 minutes do under a stall of 225 s."""
    monkeypatch.setenv("RANKMILL_RUNTIME", str(empty_stage.folder))
    settings.cache_clear()
    empty_stage.worker_environment |= {
        "PYTHONPATH": f"{CHECKOUT / 'tests' / 'faults'}:{CHECKOUT}",
        "RANKMILL_TEST_SLOW_LOAD_S": str(LOAD_S),
    }
    for name in ("a", "b", "c"):
        empty_stage.start_worker(name)
    job = empty_stage.submit()
    hit = empty_stage.about_to_break(job)
    wait_for(lambda: empty_stage.logs().count("shard started") == 3)
    wrong: set[str] = set()
    while not job.output.reported_shards():
        wrong |= set(complaints(folder(settings()), STALL_S))
        time.sleep(0.05)
    assert not [each for each in wrong if "no progress" in each], wrong
    table.append(empty_stage.wait_and_check(job, f"loads for {LOAD_S} s", hit, reference))
    assert max(empty_stage.runs(job.job_id).values()) == 1
