"""The hold on an output: one run at a time, alive by its process or its heartbeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from producer.jobs.listing import list_local_jobs
from rankmill import storage
from rankmill.errors import OutputTaken
from rankmill.output import cleanup, local_run, run_notes
from rankmill.output.local_run import Hold, check_free, hand_to_cluster, last_run
from rankmill.output.output import Output
from tests.support.finished import planned

ROWS = [{"query": "q", "document": "1"}]


def output_of(folder: Path) -> Output:
    return Output(str(folder / "out"))


def leave(output: Output, **changes: object) -> None:
    """Return the record of the newest run with other values."""
    run = last_run(output)
    assert run is not None
    names = [name for name in storage.names(output.runs_uri) if name.endswith(".json")]
    content = run.model_copy(update=changes).to_json()
    storage.write_bytes(storage.child(output.runs_uri, max(names)), content)


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    check_free(output)
    with Hold() as first:
        first.take(output, "job", "url")
        with Hold() as second, pytest.raises(OutputTaken, match="its job is being run"):
            second.take(output, "job", "url")
        with pytest.raises(OutputTaken):
            check_free(output)
    run = last_run(output)
    assert run is not None and run.ended_at is not None and not run.is_alive
    check_free(output)
    with Hold() as third:
        third.take(output, "job", "url")


@pytest.mark.parametrize(
    ("changes", "is_alive"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),
        ({"pid_started": "1"}, False),  # the id is another process's by now
        ({"boot": "before"}, True),
        ({"boot": "before", "seen_at": datetime.now(UTC) - timedelta(minutes=2)}, False),
        ({"host": "elsewhere", "boot": "", "pid": 2**22 + 1}, True),
    ],
)
def test_alive_by_process_on_this_machine_and_by_heartbeat_elsewhere(
    tmp_path: Path, changes: dict[str, object], is_alive: bool
) -> None:
    output = output_of(tmp_path)
    with Hold() as hold:
        hold.take(output, "job", "url")
        leave(output, **changes)
        run = last_run(output)
        assert run is not None and run.is_alive is is_alive


def test_of_many_runs_one_follows_a_dead_holder(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    with Hold() as dead, Hold() as heir, Hold() as late:
        dead.take(output, "job", "url")
        leave(output, pid_started="1")
        heir.take(output, "job", "url")
        with pytest.raises(OutputTaken):
            late.take(output, "job", "url")
        dead._write()  # as its heartbeat does, were it only frozen
        with pytest.raises(OutputTaken):
            dead.check()
        heir.check()


def test_a_run_with_a_wrong_clock_and_a_heartbeat_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "HEARTBEAT_S", 0.2)
    output = output_of(tmp_path)
    with Hold() as hold, Hold() as other:
        hold.take(output, "job", "url")
        assert hold._run is not None
        hold._run = hold._run.model_copy(update={"boot": "elsewhere"})
        long_ago = datetime.now(UTC) - timedelta(hours=1)  # its clock is wrong
        leave(output, boot="elsewhere", seen_at=long_ago)
        with pytest.raises(OutputTaken):
            other.take(output, "job", "url")


def test_a_cluster_takes_a_job_over(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    hand_to_cluster(output, "job")
    assert storage.names(output.runs_uri) == []
    with Hold() as hold:
        hold.take(output, "job", "url")
    hand_to_cluster(output, "job")
    assert last_run(output) is None


def test_a_run_is_listed_until_its_output_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    job = planned(ROWS, tmp_path)
    job.output.write_job(job.record)
    job.output.write_plan(job.plan)
    with Hold() as hold:
        hold.take(job.output, job.job_id, "redis+socket:///gone")
    (seen,) = list_local_jobs()
    assert (seen.output_uri, seen.state) == (job.output.uri, "interrupted")
    hand_to_cluster(job.output, job.job_id)
    assert list_local_jobs() == [] and list(run_notes.noted()) == []
    run_notes.note(job.output.uri)
    cleanup.remove_result(job.output)
    assert list_local_jobs() == [] and list(run_notes.noted()) == []


@pytest.mark.parametrize("state", ["file", "read-only"])
def test_a_run_works_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" if state == "file" else Path("/proc/1")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    job = planned(ROWS, tmp_path)
    with Hold() as hold:
        hold.take(job.output, job.job_id, "redis+socket:///gone")
    assert list(run_notes.noted()) == []
