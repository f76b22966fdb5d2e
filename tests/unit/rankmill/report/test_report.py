"""The page of a job shows the counts of its shard reports, and nothing on it can act."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest

from producer.quality.drift.diff import diff
from producer.quality.drift.gate import parse as parse_gate
from rankmill.contract.job_state import JobState
from rankmill.contract.results import Failure, Reuse, ShardReport
from rankmill.dispatch import Dispatcher
from rankmill.errors import JobUnknown, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.output import cleanup
from rankmill.output.output import Job, Output
from rankmill.report import try_report, write_report
from rankmill.report.gather import gather
from rankmill.report.totals import Tally
from tests.support.finished import candidates, finished, planned
from tests.support.scored import AWKWARD, EVIL, rows, scored
from worker.finalize import finalize, make_manifest


def page_of(output: Output) -> str:
    return Path(output.report_uri).read_text()


def words_of(page: str) -> str:
    """Return the text that a reader sees, with single spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(text).split())


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulate a machine where it was never installed."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    yield


def test_the_counts_are_those_of_the_shards(tmp_path: Path) -> None:
    job = scored(tmp_path)
    reports = list(job.output.reports(job.job_id))
    facts = gather(job.output, job.record, reports, make_manifest(job, reports))
    assert facts.state is JobState.SUCCEEDED_WITH_REJECTS
    tally = facts.tally
    assert (tally.totals["n_rows"], tally.totals["n_rejected"]) == (30, 2)
    assert tally.rejects == {"document is null": 1, "document is empty": 1}
    scores, lengths = tally.scores.total(), tally.lengths.total()
    assert scores and lengths and sum(scores.counts) == sum(lengths.counts) == 28
    assert sum(worker.n_rows for worker in tally.workers.values()) == 30
    assert {row.row for rows in facts.rejected.values() for row in rows} == {3, 7}
    words = words_of(page_text(job))
    assert "scored 28 of 30 rows" in words
    assert "2 shards were scored after a fault: 1 worker deaths" in words


def page_text(job: Job) -> str:
    write_report(job.output)
    return page_of(job.output)


def test_changes_since_the_previous_run_are_shown(tmp_path: Path) -> None:
    documents = ["a", EVIL, "c"]
    before = planned(candidates("q", documents, documents), tmp_path / "before")
    after = planned(candidates("q", documents, ["c", EVIL, "a"]), tmp_path / "after")
    outputs = [finished(job) for job in (before, after)]
    after.output.write_drift(diff(*outputs, ks=(1,), gates=[parse_gate("churn@1>0.5")]))
    page = page_text(after)
    assert "<script" not in page
    words = words_of(page)
    assert f"before {before.output.uri}, model null" in words
    assert "churn@1>0.5: it is 1" in words and "top 1 churn 1.0000; 1 queries changed" in words
    assert f"# before after was 1 a c 3 2 {EVIL} {EVIL} 2 3 c a 1" in words


def test_remarks_on_reused_scores_are_shown(tmp_path: Path) -> None:
    job = scored(tmp_path)
    reuse = Reuse(
        source_uri=EVIL, source_job_id=None, n_reused=21, n_new=7, refused=None, remarks=("but",)
    )
    manifest = make_manifest(job, list(job.output.reports(job.job_id)))
    write_report(job.output, manifest=manifest.model_copy(update={"reuse": reuse}))
    assert f"{EVIL}: but" in words_of(page_of(job.output))


def test_every_text_of_the_input_is_text_on_the_page(tmp_path: Path) -> None:
    page = page_text(scored(tmp_path))
    assert "<script" not in page and EVIL in words_of(page)
    assert f"{EVIL}&amp;" in unescape(page)  # not unescaped once too often
    assert page.count("<svg") == 4
    assert unescape(page).count(f"host-0:{AWKWARD}") >= 2  # in the table and in the plot


def test_the_page_asks_for_nothing_and_allows_nothing(tmp_path: Path) -> None:
    page = page_text(scored(tmp_path))
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    outside = re.sub(r' xmlns(:xlink)?="[^"]*"', "", page)
    assert "://" not in outside.replace(f"{tmp_path}", "")
    assert not re.search(r"<(script|link|img|iframe|object|embed|base|form)\b", page)
    assert not re.search(r"\bsrc=|@import|\bon[a-z]+=", outside)
    named = re.findall(r'\bid="([^"]+)"', page)
    assert len(named) == len(set(named)), "ids of several plots collide"
    for target in re.findall(r'(?:url\(|xlink:href=")#([^")]+)', page):
        assert target in named


def test_the_same_job_gives_the_same_page(tmp_path: Path) -> None:
    job = scored(tmp_path)
    assert page_text(job) == page_text(job)


def test_without_matplotlib_the_page_has_a_note_instead_of_plots(
    tmp_path: Path, without_matplotlib: None
) -> None:
    page = page_text(scored(tmp_path))
    assert "<svg" not in page and "matplotlib was not installed" in words_of(page)
    assert "scored 28 of 30 rows" in words_of(page)


def test_a_job_that_failed_before_its_plan_has_a_page(tmp_path: Path) -> None:
    job = planned(rows(), tmp_path)
    job.output.write_job(job.record)
    job.output.write_failure(
        Failure(
            job_id=job.job_id,
            message=f"bad: {EVIL}",
            exit_code=2,
            shard_index=None,
            failed_at=datetime.now(UTC),
        )
    )
    page = page_text(job)
    assert "failed" in words_of(page) and f"bad: {EVIL}" in words_of(page)
    assert "<svg" not in page


def test_a_folder_without_a_job_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobUnknown):
        write_report(Output(str(tmp_path)))


def test_shard_reports_of_earlier_versions_make_a_page(tmp_path: Path) -> None:
    job = scored(tmp_path)
    old = [
        report.model_copy(
            update=dict.fromkeys(("finished_at", "scores", "lengths", "logits", "reordering"))
        )
        for report in job.output.reports(job.job_id)
    ]
    write_report(job.output, old)
    page = page_of(job.output)
    assert "<svg" not in page and "scored 28 of 30 rows" in words_of(page)


def test_a_page_that_cannot_be_written_does_not_fail_the_job(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    job = scored(tmp_path)
    Path(job.output.report_uri).mkdir()
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    finalize(dispatcher, job.job_id, job.output.uri)
    assert job.output.state() is JobState.SUCCEEDED_WITH_REJECTS
    assert "rankmill report" in caplog.text


def test_finalize_writes_the_page_of_a_success(
    tmp_path: Path, ledger: Ledger, dispatcher: Dispatcher
) -> None:
    job = scored(tmp_path)
    ledger.open_job(job.record, job.plan, job.output.reports(job.job_id))
    finalize(dispatcher, job.job_id, job.output.uri)
    before = page_of(job.output)
    assert "succeeded with rejects" in words_of(before)
    assert page_text(job) == before
    cleanup.reopen(job.output)
    assert not Path(job.output.report_uri).exists()


def test_an_error_while_reporting_is_not_raised(tmp_path: Path) -> None:
    job = scored(tmp_path)

    def breaking() -> Iterator[ShardReport]:
        raise RankmillError("gone")
        yield

    manifest = make_manifest(job, list(job.output.reports(job.job_id)))
    try_report(job.output, job.job_id, breaking(), manifest)
    assert not Path(job.output.report_uri).exists()


def test_throughput_puts_each_shards_rows_where_they_were_scored(tmp_path: Path) -> None:
    job = scored(tmp_path)
    first = next(job.output.reports(job.job_id))
    tally = Tally()
    for worker, stop, wall_s, n_rows in (("a", 10, 10, 100), ("a", 20, 5, 50), ("b", 20, 20, 400)):
        at = datetime.fromtimestamp(1e9 + stop, UTC)
        changed = {"worker": worker, "finished_at": at, "wall_s": wall_s, "n_rows": n_rows}
        tally.add(first.model_copy(update=changed))
    throughput = tally.throughput()
    assert throughput is not None
    rate_at = dict(zip(throughput.seconds.round(6).tolist(), throughput.rates.T, strict=False))
    assert rate_at[0.0] == pytest.approx([10, 20])
    assert rate_at[12.0] == pytest.approx([0, 20])
    assert rate_at[18.0] == pytest.approx([10, 20])
