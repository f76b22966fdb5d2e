"""The progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from producer.cli.console import Console
from producer.cli.fact_lines import clock_text, count_text
from producer.jobs.status import JobStatus

_RATE_OVER_S = 10.0
_PLAIN_EVERY_S = 5.0


def show_progress(statuses: Iterable[JobStatus], console: Console) -> JobStatus:
    """Show the statuses of a job until it ends, and return the last one.

    On a terminal a bar; elsewhere a line when the state changes, and every 5 s if pairs were done.
    """
    rate = _Rate()
    if not console.is_terminal:
        return _print_lines(statuses, console, rate)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
        console=console,
    ) as progress:
        bar = progress.add_task("starting", total=None, facts="")
        for status in statuses:
            rate.add(status)
            progress.update(
                bar,
                description=str(status.state),
                total=max(1, status.n_rows),
                completed=status.n_pairs_done if status.n_rows else 1,
                facts=rate.facts(status) or ("" if status.state.is_final else status.reason),
            )
    return status


def _print_lines(statuses: Iterable[JobStatus], console: Console, rate: _Rate) -> JobStatus:
    printed_at, last_state, last_n_pairs = float("-inf"), "", -1
    for status in statuses:
        rate.add(status)
        has_moved = status.n_pairs_done != last_n_pairs
        is_due = time.monotonic() - printed_at >= _PLAIN_EVERY_S and has_moved
        if status.state != last_state or is_due:
            printed_at = time.monotonic()
            last_state, last_n_pairs = str(status.state), status.n_pairs_done
            share = f"{status.n_pairs_done:,} of {count_text(status.n_rows, 'pair')}"
            why = "" if status.state.is_final else status.reason
            line = "  ".join(filter(None, (f"{status.state}: {share}", rate.facts(status), why)))
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return status


class _Rate:
    """Pairs and tokens a second over the last 10 seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int]] = deque()

    def add(self, status: JobStatus) -> None:
        now = time.monotonic()
        self._points.append((now, status.n_pairs_done, status.n_tokens))
        while now - self._points[0][0] > _RATE_OVER_S:
            self._points.popleft()

    def facts(self, status: JobStatus) -> str:
        """Return the rates and the ETA; those of the whole job where nothing moves.

        Empty if they are not known. Without an ETA when the job is over.
        """
        (t0, pairs0, tokens0), (t1, pairs1, tokens1) = self._points[0], self._points[-1]
        if not status.state.is_final and t1 > t0 and pairs1 > pairs0:
            pairs_per_s, tokens_per_s = (
                (pairs1 - pairs0) / (t1 - t0),
                (tokens1 - tokens0) / (t1 - t0),
            )
            eta_s = int((status.n_rows - status.n_pairs_done) / pairs_per_s)
            rates = f"{pairs_per_s:,.0f} pairs/s  {tokens_per_s:,.0f} tokens/s"
        elif status.pairs_per_s:
            eta_s = 0 if status.state.is_final else status.eta_s or 0
            rates = f"{status.pairs_per_s:,.0f} pairs/s while scoring"
        else:
            return ""
        return f"{rates}  ETA {clock_text(eta_s)}" if eta_s else rates
