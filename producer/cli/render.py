"""What people see: a progress bar, facts, a before-and-after table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from producer.follow import JobStatus
from producer.preview import QueryPreview
from rankmill.spec import Manifest

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
                facts=rate.facts(status),
            )
    return status


def _plain_progress(statuses: Iterable[JobStatus], console: Console, rate: _Rate) -> JobStatus:
    said_at = time.monotonic()
    for status in statuses:
        rate.see(status)
        if time.monotonic() - said_at >= _PLAIN_EVERY_S or status.state.is_final:
            said_at = time.monotonic()
            share = f"{status.n_pairs_done:,} of {status.n_rows:,} pairs"
            console.print(f"{status.state}: {share} {rate.facts(status)}", highlight=False)
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
        (t0, pairs0, tokens0), (t1, pairs1, tokens1) = self._seen[0], self._seen[-1]
        if t1 <= t0 or pairs1 <= pairs0:
            return ""
        pairs_per_s = (pairs1 - pairs0) / (t1 - t0)
        tokens_per_s = (tokens1 - tokens0) / (t1 - t0)
        left_s = int((status.n_rows - status.n_pairs_done) / pairs_per_s)
        eta = f"  ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}" if left_s else ""
        return f"{pairs_per_s:,.0f} pairs/s  {tokens_per_s:,.0f} tokens/s{eta}"


def status_table(status: JobStatus) -> Table:
    table = _facts()
    for name, value in status.model_dump(mode="json").items():
        if value != "":
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table


def result_table(manifest: Manifest) -> Table:
    """What a finished job came to; its output last, where the eye ends."""
    wall_s = (manifest.finished_at - manifest.submitted_at).total_seconds()
    table = _facts()
    scored = f"{manifest.n_scored:,} of {manifest.n_rows:,} rows"
    table.add_row("scored", f"{scored} in {manifest.n_query_groups:,} query groups")
    if manifest.n_rejected:
        reasons = ", ".join(f"{why}: {n:,}" for why, n in manifest.rejects_by_reason.items())
        table.add_row("rejected", f"{manifest.n_rejected:,} ({reasons})")
    share = manifest.n_truncated / max(1, manifest.n_scored)
    table.add_row("truncated", f"{manifest.n_truncated:,} ({share:.1%})")
    table.add_row("written", f"{manifest.n_written:,} rows in {len(manifest.parts):,} parts")
    rate = f"{manifest.n_rows / max(wall_s, 1e-9):,.0f} pairs/s"
    table.add_row("time", f"{wall_s:,.1f} s, {rate}, {manifest.n_tokens:,} tokens")
    for scoring in manifest.scoring:
        how = f"{scoring.path} {scoring.precision} on {scoring.device}"
        table.add_row("model", f"{scoring.model_id}, {scoring.architecture}, {how}")
    table.add_row("output", manifest.spec.output_uri)
    return table


def preview_table(preview: QueryPreview) -> Table:
    """One query: its first candidates before and after, each new one with where it stood before."""
    table = Table(title=f"[bold]{_plain(preview.query)}", title_justify="left", expand=False)
    table.add_column("#", justify="right")
    table.add_column("before", overflow="ellipsis", no_wrap=True)
    table.add_column("after", overflow="ellipsis", no_wrap=True)
    table.add_column("was", justify="right")
    table.add_column("score", justify="right")
    for place in range(max(len(preview.before), len(preview.after))):
        row = [str(place + 1), "", "", "", ""]
        if place < len(preview.before):
            row[1] = _plain(preview.before[place].label)
        if place < len(preview.after):
            after = preview.after[place]
            row[2:] = [_plain(after.label), str(after.place_before), f"{after.score:.4f}"]
        table.add_row(*row)
    return table


def _facts() -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _plain(text: str) -> str:
    """Text of users must not be read as markup."""
    return text.replace("[", r"\[")
