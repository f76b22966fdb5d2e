"""What people see: a progress bar, facts, a before-and-after table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from producer.cli.console import Console
from producer.jobs.preview import QueryPreview
from producer.jobs.status import JobStatus
from producer.quality.evaluate import Evaluation
from rankmill.contract.results import Agreement, Manifest, Reuse
from rankmill.shown import escaped

_RATE_OVER_S = 10.0
_PLAIN_EVERY_S = 5.0


def show_progress(statuses: Iterable[JobStatus], console: Console) -> JobStatus:
    """Show a job until it ends, and return its last status.

    A bar on a terminal, else a plain line every few seconds.
    """
    rate = _Rate()
    if not console.is_terminal:
        return _plain_progress(statuses, console, rate)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
        console=console,
    ) as progress:
        bar = progress.add_task("starting", total=None, facts="")
        for status in statuses:
            rate.see(status)
            progress.update(
                bar,
                description=str(status.state),
                total=max(1, status.n_rows),
                completed=status.n_pairs_done if status.n_rows else 1,
                facts=rate.facts(status) or ("" if status.state.is_final else status.reason),
            )
    return status


def _plain_progress(statuses: Iterable[JobStatus], console: Console, rate: _Rate) -> JobStatus:
    """Print a line where the state changes, and every few seconds if pairs were done."""
    said_at, said = float("-inf"), ("", -1)
    for status in statuses:
        rate.see(status)
        state, n_pairs = said
        is_due = time.monotonic() - said_at >= _PLAIN_EVERY_S and status.n_pairs_done != n_pairs
        if status.state != state or is_due:
            said_at, said = time.monotonic(), (str(status.state), status.n_pairs_done)
            share = f"{status.n_pairs_done:,} of {status.n_rows:,} pairs"
            why = "" if status.state.is_final else status.reason
            line = "  ".join(filter(None, (f"{status.state}: {share}", rate.facts(status), why)))
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return status


class _Rate:
    """Pairs and tokens a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def see(self, status: JobStatus) -> None:
        now = time.monotonic()
        self._seen.append((now, status.n_pairs_done, status.n_tokens))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()

    def facts(self, status: JobStatus) -> str:
        """Pairs and tokens a second and the time left; those of the whole job where nothing moves.

        Empty where nothing is known, and when the job is over.
        """
        if status.state.is_final:
            return f"{status.pairs_per_s:,.0f} pairs/s" if status.pairs_per_s else ""
        (t0, pairs0, tokens0), (t1, pairs1, tokens1) = self._seen[0], self._seen[-1]
        if t1 <= t0 or pairs1 <= pairs0:
            if not status.pairs_per_s:
                return ""
            return f"{status.pairs_per_s:,.0f} pairs/s{_eta(status.eta_s)}"
        pairs_per_s = (pairs1 - pairs0) / (t1 - t0)
        tokens_per_s = (tokens1 - tokens0) / (t1 - t0)
        eta = _eta(int((status.n_rows - status.n_pairs_done) / pairs_per_s))
        return f"{pairs_per_s:,.0f} pairs/s  {tokens_per_s:,.0f} tokens/s{eta}"


def _eta(left_s: int | None) -> str:
    return f"  ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}" if left_s else ""


def status_facts(status: JobStatus) -> Text:
    shown = [(name, _fact(value)) for name, value in status if value or name == "exit_code"]
    repeated = {"message"} if status.message == status.reason else set()
    return _facts([(name, value) for name, value in shown if value and name not in repeated])


def _fact(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, int | float):
        return f"{value:,}"
    return "" if value is None else str(value)


def result_facts(manifest: Manifest, report_uri: str | None) -> Text:
    """What a finished job came to; its output last, where the eye ends."""
    wall_s = (manifest.finished_at - manifest.submitted_at).total_seconds()
    scored = f"{manifest.n_scored:,} of {manifest.n_rows:,} rows"
    share = manifest.n_truncated / max(1, manifest.n_scored)
    rate = f"{manifest.n_rows / max(wall_s, 1e-9):,.0f} pairs/s"
    facts = [
        ("scored", f"{scored} in {manifest.n_query_groups:,} query groups"),
        ("truncated", f"{manifest.n_truncated:,} ({share:.1%})"),
        ("written", f"{manifest.n_written:,} rows in {len(manifest.parts):,} parts"),
        ("time", f"{wall_s:,.1f} s, {rate}, {manifest.n_tokens:,} tokens"),
    ]
    if manifest.n_rejected:
        reasons = ", ".join(f"{why}: {n:,}" for why, n in manifest.rejects_by_reason.items())
        facts.append(("rejected", f"{manifest.n_rejected:,} ({reasons})"))
    if manifest.title_col:
        without = "--title-col none leaves it out"
        facts.append(("titles", f"column '{manifest.title_col}' before each text; {without}"))
    if manifest.reuse:
        facts.append(("reused", _reuse(manifest.reuse)))
    for scoring in manifest.scoring:
        how = f"{scoring.path} {scoring.precision} on {scoring.device}"
        facts.append(("model", f"{scoring.model_id}, {scoring.architecture}, {how}"))
        asked = manifest.spec.max_length
        if asked is not None and asked > scoring.max_length > 0:  # `null` reads no tokens
            limit = f"{scoring.max_length:,} tokens, all that the model takes, not {asked:,}"
            facts.append(("max length", limit))
    if manifest.agreement:
        facts.append(("precision", _agreement(manifest.agreement)))
    elif manifest.no_agreement:
        facts.append(("precision", f"agreement with fp32 {manifest.no_agreement}"))
    if report_uri is not None:
        facts.append(("report", report_uri))
    facts.append(("output", manifest.spec.output_uri))
    return _facts(facts)


def jobs_table(jobs: list[JobStatus]) -> Table:
    """A line a job; on a terminal its output and reason are folded, never cut."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "state", "pairs", "rate", "ETA", "model", "submitted", "last progress"):
        table.add_column(name, no_wrap=True)
    for name in ("ended", "output", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "ended")
    for job in jobs:
        times = (_fact(at) for at in (job.submitted_at, job.progress_at, job.ended_at))
        submitted, progressed, ended = times
        table.add_row(
            *(job.job_id, str(job.state), f"{job.n_pairs_done:,} of {job.n_rows:,}"),
            f"{job.pairs_per_s:,.0f}/s" if job.pairs_per_s else "",
            *(_eta(job.eta_s).removeprefix("  ETA "), _plain(job.model_id)),
            *(submitted, progressed, ended, _plain(job.output_uri), _plain(job.reason)),
        )
    return table


def preview_table(preview: QueryPreview) -> Table:
    """One query: its first candidates before and after, each new one with where it stood before."""
    table = Table(title=f"[bold]{_plain(preview.query)}", title_justify="left", expand=False)
    table.add_column("#", justify="right", min_width=1)
    table.add_column("before", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("after", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("was", justify="right", min_width=3)
    table.add_column("score", justify="right", min_width=6)
    for place in range(max(len(preview.before), len(preview.after))):
        row = [str(place + 1), "", "", "", ""]
        if place < len(preview.before):
            row[1] = _plain(preview.before[place].label)
        if place < len(preview.after):
            after = preview.after[place]
            row[2:] = [_plain(after.label), str(after.place_before), f"{after.score:.4f}"]
        table.add_row(*row)
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """A line a measure: its means and their difference, its p-value, and what queries changed."""
    table = Table("measure", box=None, pad_edge=False)
    for name in ("before", "after", "change", "p", "better", "worse", "equal"):
        table.add_column(name, justify="right")
    for each in evaluation.comparisons:
        means = f"{each.before:.4f}", f"{each.after:.4f}", f"{each.after - each.before:+.4f}"
        p_value = "<0.0001" if each.p_value < 0.0001 else f"{each.p_value:.4f}"
        changed = (f"{n:,}" for n in (each.n_better, each.n_worse, each.n_equal))
        table.add_row(each.measure, *means, p_value, *changed)
    return table


def evaluation_facts(evaluation: Evaluation) -> Text:
    """What the means are taken over and what they compare."""
    n_left_out = evaluation.n_judged - evaluation.n_queries
    left_out = f", {n_left_out:,} without are left out" if n_left_out else ""
    by = "column score" if evaluation.before_by == "score" else "order"
    kept = f", the best {evaluation.top_k:,} of each query" if evaluation.top_k else ""
    found = f"{evaluation.n_in_input:,} before, {evaluation.n_in_parts:,} after"
    return _facts(
        [
            ("queries", f"{evaluation.n_queries:,} with a relevant document{left_out}"),
            ("found", f"{found}; a query not found counts as 0"),
            ("before", f"all candidates by the input's {by}"),
            ("after", f"by rank{kept}"),
            ("p", "two-sided, of a paired permutation test of the queries' differences"),
        ]
    )


def _agreement(agreement: Agreement) -> str:
    return (
        f"{agreement.precision} against fp32 on the first {agreement.n_pairs} pairs: "
        f"tau {agreement.kendall_tau:.3f}, top-10 overlap {agreement.top10_overlap:.3f}, "
        f"largest logit difference {agreement.max_difference:.2g}"
    )


def _reuse(reuse: Reuse) -> str:
    share = reuse.n_reused / max(1, reuse.n_reused + reuse.n_new)
    what = f"{reuse.n_reused:,} scores ({share:.1%}) from {reuse.source_uri}"
    told = [what if reuse.n_reused or not reuse.refused else "no scores", reuse.refused or ""]
    return "; ".join(filter(None, (*told, *reuse.remarks)))


def _facts(facts: list[tuple[str, str]]) -> Text:
    """A line a fact, never wrapped, so that a path can be copied."""
    width = max(len(name) for name, _ in facts)
    lines = Text(no_wrap=True, overflow="ignore")
    for name, value in facts:
        lines.append(f"{name:<{width}}  ", style="bold").append(f"{value}\n")
    lines.rstrip()
    return lines


def _plain(text: str) -> str:
    """Text of users must not be read as markup."""
    return escaped(text).replace("[", r"\[")
