"""Run jobs in a cluster of two releases, both ways, while workers are exchanged.

`make test` runs the short form. `make test-chaos` runs every combination and prints their table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankmill.contract.base import Contract, Part
from tests.chaos.releases import (
    Release,
    Workers,
    checkout,
    last_release,
    release_to_come,
    workers_in,
)
from tests.chaos.stage import Outcome, Stage
from tests.support.inputs import control, pairs, read_output, wait_for

N_ROWS, N_SHARDS = 240, 15
SLOW = "null:16"  # 15 s of work, so that workers can be exchanged meanwhile
OPTIONS = ("--shard-pairs", "16", "--max-reject-rate", "0.1")
FIELDS = """
import json
from rankmill.contract.base import Contract
import rankmill.contract.drift, rankmill.contract.estimate, rankmill.contract.reuse
import rankmill.models.store, rankmill.notify, rankmill.output.local_run, producer.schedules.spec

def classes(of):
    return [of, *(each for below in of.__subclasses__() for each in classes(below))]

print(json.dumps({each.__name__: list(each.model_fields) for each in classes(Contract)}))
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return last_release(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new() -> Release:
    return checkout()


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_to_come(tmp_path_factory.mktemp("newer"))


@pytest.fixture
def workers(broker_url: str, tmp_path: Path) -> Iterator[Workers]:
    with workers_in(tmp_path) as started:
        yield started


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Write pairs as JSONL, which a worker must prepare; their queries are apart, two are bad."""
    rows = pairs(N_ROWS // 8, 8)
    rows = rows[::2] + rows[1::2]
    rows[5]["document"] = rows[77]["document"] = ""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def combinations() -> Iterator[list[str]]:
    """Collect the lines of the table, and print it at the end."""
    lines = ["| submitted by | prepared and finalized by | scored by | result |"]
    lines.append("| --- " * 4 + "|")
    yield lines
    print("", *lines, sep="\n")


def test_a_worker_is_upgraded_while_its_job_runs(
    old: Release, new: Release, workers: Workers, lines: Path, tmp_path: Path
) -> None:
    """A new producer with both workers, then an old producer with the new one."""
    first, second = tmp_path / "first", tmp_path / "second"
    workers.start(old)
    workers.start(new)
    job_id = submit(new, lines, first)
    wait_for(lambda: all(map(workers.is_ready, ("old-all", "new-all"))))
    exchange(workers, "old-all", first)
    other = submit(old, lines, second, model="null")
    wait_for_end(old, first)
    assert submit(old, lines, first) == job_id, "it is the same job"
    wait_for_end(new, second)
    assert submit(new, lines, second, model="null") == other, "it is the same job"
    check_whole(first, n_workers=2)
    check_whole(second, n_workers=1)
    workers.check_logs()


def test_a_newer_release_is_understood_or_declined(
    new: Release, newer: Release, workers: Workers, lines: Path, tmp_path: Path
) -> None:
    output, declined = tmp_path / "out", tmp_path / "declined"
    workers.start(new)
    submit_with(newer, lines, output, label="nightly")
    wait_for_end(new, output)
    record = json.loads((control(output) / "job.json").read_text())
    manifest = json.loads((control(output) / "manifest.json").read_text())
    for spec in (record["spec"], manifest["spec"]):
        assert (spec["version"], spec["minor"], spec["label"]) == (1, 1, "nightly")
    assert (record["minor"], record["origin"]) == (1, "x")
    assert submit(new, lines, output, model="null") == record["job_id"], "a label changes no id"
    submit_with(newer, lines, declined, depth=2)
    wait_for(lambda: "job refused" in workers.logs())
    said = new.rankmill("status", declined, code=2)
    assert "has contract version 4, and this release knows 3; upgrade Rankmill on" in said
    assert said.count("\n") == 1
    failed = json.loads(new.rankmill("jobs", "--json"))[0]
    assert (failed["output_uri"], failed["state"]) == (str(declined), "failed")
    assert "contract version 4" in failed["message"] and "(on " in failed["message"]


def test_a_field_that_the_last_release_does_not_know_is_marked(old: Release) -> None:
    """Else the last release refuses what this one writes, and jobs change their ids."""
    done = old.python("-c", FIELDS)
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout)

    def classes(of: type[Part]) -> list[type[Part]]:
        return [of, *(each for below in of.__subclasses__() for each in classes(below))]

    ours = [each for each in classes(Contract) if each.__module__.startswith(("rank", "prod"))]
    unmarked = [
        f"{each.__name__}.{name}"
        for each in ours
        for name in each.model_fields
        if name not in (*known.get(each.__name__, each.model_fields), "minor", *each.later)
    ]
    assert unmarked == [], "annotate these with Since"
    required = [
        f"{each.__name__}.{name}"
        for each in ours
        for name in each.later
        if each.model_fields[name].is_required()
    ]
    assert required == [], "a later field needs a default"


@pytest.mark.long
def test_a_worker_is_rolled_back_while_its_job_runs(
    old: Release, new: Release, workers: Workers, lines: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    workers.start(new)
    job_id = submit(old, lines, output)
    workers.start(old)
    wait_for(lambda: workers.is_ready("old-all"))
    exchange(workers, "new-all", output)
    wait_for_end(new, output)
    assert submit(new, lines, output) == job_id, "it is the same job"
    check_whole(output, n_workers=2)
    workers.check_logs()


@pytest.mark.long
def test_a_rolling_upgrade(
    old: Release, new: Release, empty_stage: Stage, reference: Path, table: list[Outcome]
) -> None:
    with workers_in(empty_stage.folder) as workers:
        for name in ("a", "b", "c"):
            workers.start(old, name=name)
        job = empty_stage.submit()
        wait_for(lambda: len(job.output.reported_shards()) >= 5, within_s=120)
        hit = empty_stage.about_to_break(job)
        for name in ("a", "b", "c"):
            workers.terminate(name)
            workers.start(new, name=f"new-{name}")
        assert not job.output.has_ended(), "the upgrade came too late"
        name = "mixed version: workers upgraded one by one"
        table.append(empty_stage.wait_and_check(job, name, hit, reference))
        workers.check_logs()


@pytest.mark.long
def test_a_job_of_a_newer_major_is_left_to_a_newer_worker(
    new: Release, newer: Release, workers: Workers, lines: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    workers.start(new)
    workers.start(newer)
    wait_for(lambda: all(map(workers.is_ready, ("new-all", "newer-all"))))
    submit_with(newer, lines, output, depth=2, model_id=SLOW)
    wait_for_end(newer, output)
    check_whole(output, n_workers=1)
    assert "work declined" in workers.logs()
    assert "contract version 4" in new.rankmill("status", output, code=2)
    workers.check_logs()


@pytest.mark.long
@pytest.mark.parametrize("scores", ["old", "new"])
@pytest.mark.parametrize("controls", ["old", "new"])
@pytest.mark.parametrize("submits", ["old", "new"])
def test_each_combination_of_releases(
    submits: str,
    controls: str,
    scores: str,
    old: Release,
    new: Release,
    workers: Workers,
    lines: Path,
    tmp_path: Path,
    combinations: list[str],
) -> None:
    releases, output = {"old": old, "new": new}, tmp_path / "out"
    job_id = submit(releases[submits], lines, output, "--trec-run")
    workers.start(releases[controls], "control")
    workers.start(releases[scores], "score")
    wait_for(lambda: n_reported(output) >= 1)
    for each in (old, new):
        assert each.status(output)["state"] in ("running", "finalizing", "succeeded with rejects")
    wait_for_end(old, output)
    assert old.status(output) == new.status(output)
    check_whole(output, n_workers=1)
    for each in (old, new):
        assert submit(each, lines, output, "--trec-run") == job_id, "it is the same job"
    workers.check_logs()
    combinations.append(f"| {submits} | {controls} | {scores} | 0 of {N_ROWS} rows lost, same id |")


@pytest.mark.long
@pytest.mark.parametrize(("made_by", "used_by"), [("old", "new"), ("new", "old")])
def test_an_output_of_one_release_is_used_by_another(
    made_by: str,
    used_by: str,
    old: Release,
    new: Release,
    workers: Workers,
    lines: Path,
    tmp_path: Path,
) -> None:
    releases = {"old": old, "new": new}
    makes, uses = releases[made_by], releases[used_by]
    output, again = tmp_path / "out", tmp_path / "again"
    workers.start(makes)
    submit(makes, lines, output, "--for-reuse", model="null")
    wait_for_end(uses, output)
    uses.rankmill("report", output)
    assert "is over" in uses.rankmill("cancel", output, code=2)
    workers.start(uses)
    wait_for(lambda: workers.is_ready(f"{used_by}-all"))
    workers.terminate(f"{made_by}-all")
    uses.rankmill("retry-rejects", output)
    wait_for_end(makes, output)
    submit(uses, lines, again, "--reuse-from", str(output), model="null")
    wait_for_end(makes, again)
    manifest = json.loads((control(again) / "manifest.json").read_text())
    assert manifest["reuse"]["n_reused"] == N_ROWS - 2
    drift = json.loads(makes.rankmill("diff", output, again, "--json"))
    assert drift["pairs"]["n_common"] == N_ROWS - 2
    less = (*OPTIONS, "--model", "null", "--top-k", "4")
    assert "top_k" in uses.rankmill("submit", lines, output, *less, code=2)
    uses.rankmill("submit", lines, output, *less, "--overwrite")
    wait_for(lambda: (output / "_SUCCESS").exists() and len(read_output(output)) < N_ROWS - 2)
    workers.check_logs()


@pytest.mark.long
@pytest.mark.parametrize(("adds", "works"), [("old", "new"), ("new", "old")])
def test_a_schedule_of_one_release_is_run_by_another(
    adds: str, works: str, old: Release, new: Release, workers: Workers, lines: Path
) -> None:
    releases, runs = {"old": old, "new": new}, lines.parent / "runs"
    options = ("--cron", "0 3 * * *", "--model", "null", "--fail-if", "churn@10>0.9")
    releases[adds].rankmill("schedule", "add", "nightly", lines, runs, *OPTIONS, *options)
    shown = [each.rankmill("schedule", "show", "nightly", "--json") for each in (old, new)]
    assert json.loads(shown[0])["spec"] == json.loads(shown[1])["spec"]
    workers.start(releases[works])
    releases[adds].rankmill("schedule", "run-now", "nightly")
    releases[works].python("-c", "from tasks.jobs import tick; tick()")  # what beat sends
    wait_for(lambda: ended(runs), 90)
    releases[adds].python("-c", "from tasks.jobs import tick; tick()")
    for each in (old, new):
        [firing] = json.loads(each.rankmill("schedule", "history", "nightly", "--json"))
        assert firing["state"] == "succeeded"
    workers.check_logs()


def ended(runs: Path) -> bool:
    return any(runs.glob("*/_SUCCESS"))


def submit(release: Release, lines: Path, output: Path, *options: str, model: str = SLOW) -> str:
    """Submit by the command, and return the job's id."""
    given = ("--model", model, *OPTIONS, *options)
    return release.rankmill("submit", lines, output, *given).strip()


def submit_with(newer: Release, lines: Path, output: Path, **options: object) -> None:
    """Submit with options that have no flag yet."""
    given = {"model_id": "null", "shard_pairs": 16, "max_reject_rate": 0.1, **options}
    given |= {"input_uri": str(lines), "output_uri": str(output)}
    imports = "from producer.jobs.submit import submit_spec, JobSpec"
    done = newer.python("-c", f"{imports}; submit_spec(JobSpec(**{given}))")
    assert done.returncode == 0, done.stderr


def exchange(workers: Workers, leaving: str, output: Path) -> None:
    """End a worker in the middle of a job."""
    wait_for(lambda: n_reported(output) >= 2)
    workers.terminate(leaving)
    assert n_reported(output) < N_SHARDS, "the worker left too late"


def wait_for_end(release: Release, output: Path, within_s: float = 90) -> None:
    """Wait until the job has succeeded, by the status of a release."""
    deadline = time.monotonic() + within_s
    while not (output / "_SUCCESS").exists():
        failure = control(output) / "failure.json"
        assert not failure.exists(), failure.read_text()
        assert time.monotonic() < deadline, release.status(output)
        time.sleep(0.05)
    status = release.status(output)
    assert status["state"] == "succeeded with rejects", status
    assert (status["n_rows"], status["n_rejected"]) == (N_ROWS, 2)


def n_reported(output: Path) -> int:
    return len(list((control(output) / "shards").glob("*.json")))


def check_whole(output: Path, n_workers: int) -> None:
    """Check each row, and how many processes have scored."""
    rows = [(row["query_id"], row["doc_id"]) for row in read_output(output)]
    assert len(rows) == len(set(rows)) == N_ROWS - 2
    reports = (control(output) / "shards").glob("*.json")
    assert len({json.loads(each.read_text())["worker"] for each in reports}) == n_workers
