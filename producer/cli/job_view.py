"""Views of jobs: a status, a result, a list, a preview."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import clock_text, count_text, facts_text
from producer.jobs.preview import QueryPreview
from producer.jobs.status import JobStatus
from rankmill.contract.results import Agreement, Manifest, Reuse, Scoring
from rankmill.shown import escaped


def status_facts(status: JobStatus) -> Text:
    """Return the fields of a status that have a value."""
    facts = [(name, _fact(value)) for name, value in status if value or name == "exit_code"]
    repeated = {"message"} if status.message == status.reason else set()
    return facts_text([(name, value) for name, value in facts if value and name not in repeated])


def _fact(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, int | float):
        return f"{value:,}"
    return "" if value is None else str(value)


def result_facts(manifest: Manifest, status: JobStatus, report_uri: str | None) -> Text:
    """Return the figures of a finished job, with its output last, where the eye ends."""
    scored = f"{manifest.n_scored:,} of {count_text(manifest.n_rows, 'row')}"
    written = count_text(manifest.n_written, "row")
    share = manifest.n_truncated / max(1, manifest.n_scored)
    facts = [
        ("scored", f"{scored} in {count_text(manifest.n_query_groups, 'query group')}"),
        ("truncated", f"{manifest.n_truncated:,} ({share:.1%})"),
        ("written", f"{written} in {count_text(len(manifest.parts), 'part')}"),
        ("time", _times(manifest, status)),
    ]
    if manifest.n_rejected:
        reasons = ", ".join(f"{why}: {n:,}" for why, n in manifest.rejects_by_reason.items())
        facts.append(("rejected", f"{manifest.n_rejected:,} ({reasons})"))
    if manifest.title_col:
        without = "--title-col none leaves it out"
        facts.append(("titles", f"column '{manifest.title_col}' before each text; {without}"))
    if manifest.reuse:
        facts.append(("reused", _reused(manifest.reuse)))
    for scoring in manifest.scoring:
        facts += _scoring_facts(scoring, manifest.spec.max_length)
    if manifest.agreement:
        facts.append(("precision", _compared(manifest.agreement)))
    elif manifest.no_agreement:
        facts.append(("precision", f"agreement with fp32 {manifest.no_agreement}"))
    if report_uri is not None:
        facts.append(("report", report_uri))
    facts.append(("output", manifest.spec.output_uri))
    return facts_text(facts)


def _times(manifest: Manifest, status: JobStatus) -> str:
    wall_s = (manifest.finished_at - manifest.submitted_at).total_seconds()
    times = [f"{wall_s:,.1f} s since submission"]
    if status.scoring_s is not None:
        times.append(f"{status.scoring_s:,.1f} s of scoring")
    if status.pairs_per_s is not None:
        times.append(f"{status.pairs_per_s:,.0f} pairs/s while scoring")
    return ", ".join([*times, count_text(manifest.n_tokens, "token")])


def _reused(reuse: Reuse) -> str:
    share = reuse.n_reused / max(1, reuse.n_reused + reuse.n_new)
    scores = f"{count_text(reuse.n_reused, 'score')} ({share:.1%}) from {reuse.source_uri}"
    said = [scores if reuse.n_reused or not reuse.refused else "no scores", reuse.refused or ""]
    return "; ".join(filter(None, (*said, *reuse.remarks)))


def _scoring_facts(scoring: Scoring, asked: int | None) -> Iterator[tuple[str, str]]:
    how = f"{scoring.path} {scoring.precision} on {scoring.device}"
    yield "model", f"{scoring.model_id}, {scoring.architecture}, {how}"
    if scoring.recipe is not None:
        yield "recipe", scoring.recipe
    if asked is not None and asked > scoring.max_length > 0:  # `null` reads no tokens
        limit = f"{scoring.max_length:,} tokens, all that the model takes, not {asked:,}"
        yield "max length", limit


def _compared(agreement: Agreement) -> str:
    return (
        f"{agreement.precision} against fp32 on the first {count_text(agreement.n_pairs, 'pair')}: "
        f"tau {agreement.kendall_tau:.3f}, top-10 overlap {agreement.top10_overlap:.3f}, "
        f"largest logit difference {agreement.max_difference:.2g}"
    )


def jobs_table(jobs: list[JobStatus]) -> Table:
    """Return a line for each job; a terminal folds its output and reason, and cuts nothing."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "state", "pairs", "rate", "ETA", "model", "submitted", "last progress"):
        table.add_column(name, no_wrap=True)
    for name in ("ended", "output", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "ended")
    for job in jobs:
        cells = (
            job.job_id,
            str(job.state),
            f"{job.n_pairs_done:,} of {job.n_rows:,}",
            f"{job.pairs_per_s:,.0f}/s" if job.pairs_per_s else "",
            clock_text(job.eta_s) if job.eta_s else "",
            escaped(job.model_id),
            *(_fact(at) for at in (job.submitted_at, job.progress_at, job.ended_at)),
            escaped(job.output_uri),
            escaped(job.reason),
        )
        table.add_row(*map(Text, cells))
    return table


def preview_table(preview: QueryPreview) -> Table:
    """Return the first candidates of a query before and after, with the earlier place of each."""
    title = Text(escaped(preview.query), style="bold")
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("#", justify="right", min_width=1)
    table.add_column("before", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("after", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("was", justify="right", min_width=3)
    table.add_column("score", justify="right", min_width=6)
    for place in range(max(len(preview.before), len(preview.after))):
        row = [str(place + 1), "", "", "", ""]
        if place < len(preview.before):
            row[1] = escaped(preview.before[place].label)
        if place < len(preview.after):
            after = preview.after[place]
            row[2:] = [escaped(after.label), str(after.place_before), f"{after.score:.4f}"]
        table.add_row(*map(Text, row))
    return table
