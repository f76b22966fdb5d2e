"""A job fails as soon as no host may do its work, and never before."""

from __future__ import annotations

import pytest

from rankmill.errors import Blame
from rankmill.ledger.declines import Decline, Declines, failure, is_hopeless
from rankmill.ledger.jobs import Ledger


def decline(
    worker: str,
    *,
    machine: str = "",
    kind: str = "HostUnfit",
    blame: Blame = "host",
    n_shards_done: int = 0,
    at: float = 30.0,
) -> Decline:
    return Decline(
        worker=worker,
        host=f"node-{worker}",
        machine=machine or worker,
        reason="read-only",
        kind=kind,
        blame=blame,
        n_shards_done=n_shards_done,
        at=at,
        since=0.0,
    )


def hopeless(
    *declines: Decline, live: str = "abcdefg", n_done: int = 0, runs: bool = False
) -> bool:
    return is_hopeless(declines, set(live), n_done, is_running=runs)


def test_a_job_is_hopeless_once_every_live_worker_declined_it() -> None:
    a, b = decline("a"), decline("b", blame="settings")
    assert hopeless(a, live="a") and hopeless(a, b, live="ab") and hopeless(a, live="")
    assert not hopeless(a, live="ab") and not hopeless(b, live="ab")
    assert not hopeless(a, b, live="ab", runs=True)


def test_three_machines_with_the_same_fault_are_enough() -> None:
    assert hopeless(decline("a"), decline("b"), decline("c"))
    assert not hopeless(decline("a"), decline("b"))
    assert not hopeless(*(decline(worker, at=29.0) for worker in "abc"))


def test_machines_with_different_faults_do_not_agree() -> None:
    kinds = {"a": "HostUnfit", "b": "StorageRefused", "c": "InputMissing"}
    assert not hopeless(*(decline(worker, kind=kind) for worker, kind in kinds.items()))


def test_three_workers_of_one_machine_are_not_enough() -> None:
    assert not hopeless(*(decline(worker, machine="m") for worker in "abc"))


def test_machines_do_not_agree_while_others_do_the_work() -> None:
    three = [decline(worker) for worker in "abc"]
    assert not hopeless(*three, runs=True)
    assert not hopeless(*three, n_done=1)
    assert hopeless(*(decline(worker, n_shards_done=1) for worker in "abc"), n_done=1)


def test_a_decline_is_out_of_date_once_a_shard_has_ended() -> None:
    early, late = decline("a", n_shards_done=3), decline("b", n_shards_done=4)
    assert not hopeless(early, late, live="ab", n_done=4)
    assert hopeless(decline("a", n_shards_done=4), late, live="ab", n_done=4)


def test_declines_because_of_settings_need_every_live_worker() -> None:
    assert not hopeless(*(decline(worker, blame="settings") for worker in "abcdef"))


def test_a_failure_lists_each_reason_with_its_hosts() -> None:
    twins = [decline(worker).model_copy(update={"host": "node"}) for worker in ("one", "two")]
    other = decline("c").model_copy(update={"reason": "not pulled"})
    assert (
        str(failure([*twins, other], 2))
        == "read-only (on node/one, node/two); not pulled (on node-c)"
    )
    assert failure([other], 2).exit_code == 2


def test_a_decline_replaces_its_workers_last(ledger: Ledger) -> None:
    declines = Declines(ledger.redis)
    declines.note("job", decline("b"), 100)
    first = decline("a").model_copy(update={"at": 40.0, "since": 40.0})
    again = first.model_copy(update={"at": 50.0, "since": 50.0})
    declines.note("job", first, 100)
    noted = {each.worker: each for each in declines.note("job", again, 100)}
    assert noted["a"].at == 50.0 and noted["a"].since == 40.0 and noted.keys() == {"a", "b"}
    other = again.model_copy(update={"kind": "InputMissing"})
    assert {each.since for each in declines.note("job", other, 100)} == {0.0, 50.0}


def test_only_recent_and_readable_declines_count(ledger: Ledger) -> None:
    declines = Declines(ledger.redis)
    declines.note("job", decline("a"), 100)
    ledger.redis.hset("rankmill:job:job:declined", mapping={"x": "{}", "y": "no JSON"})
    assert [each.worker for each in declines.of_job("job", 31.0)] == ["a"]
    assert declines.of_job("job", 1000.0) == []
    assert ledger.redis.ttl("rankmill:job:job:declined") in range(1, 101)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_live_worker_counts_for_its_queues_alone(ledger: Ledger, n_workers: int) -> None:
    for n in range(n_workers):
        ledger.workers.seen(f"{n}@host", ["rankmill.score"])
    assert len(ledger.workers.takers("rankmill.score")) == n_workers
    assert ledger.workers.takers("rankmill.control") == set()
