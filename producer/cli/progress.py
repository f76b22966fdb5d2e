"""The progress of a job: one line that is updated on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.text import Text

from producer.cli.console import Console
from producer.cli.fact_lines import clock_text, count_text
from producer.jobs.status import JobStatus
from rankmill.contract.job_state import JobState

_RATE_OVER_S = 10.0
_PLAIN_EVERY_S = 60.0
_REDRAWN_A_SECOND = 4
_BAR_CHARS = 20
# What goes first where a terminal is narrow. The phase, its share and a wait's seconds stay.
_LEAVES = ("bar", "busy", "tokens", "elapsed", "rows", "rate", "ends", "why")
_PHASES = {
    JobState.SUBMITTED: "starting",
    JobState.PREPARING: "preparing",
    JobState.FINALIZING: "finishing",
}


@contextmanager
def phase(console: Console, name: str) -> Iterator[None]:
    """Show on a terminal what happens before a job has a status, and for how long it does."""
    if not console.is_terminal:
        yield
        return
    started = time.monotonic()

    def facts() -> dict[str, str]:
        return {"phase": name, "elapsed": _elapsed(started)}

    with _line(console, facts, transient=True):
        yield


def show_progress(statuses: Iterable[JobStatus], console: Console) -> JobStatus:
    """Show the statuses of a job until it ends, and return the last one.

    Elsewhere than on a terminal a line is printed when the phase changes, and each minute.
    """
    progress = _Progress()
    if not console.is_terminal:
        return _print_lines(statuses, console, progress)
    with _line(console, progress.facts):
        for status in statuses:
            progress.add(status)
    return status


def _print_lines(statuses: Iterable[JobStatus], console: Console, progress: _Progress) -> JobStatus:
    printed_at, last = float("-inf"), ""
    for status in statuses:
        progress.add(status)
        facts = progress.facts()
        if facts["phase"] != last or time.monotonic() - printed_at >= _PLAIN_EVERY_S:
            printed_at, last = time.monotonic(), facts["phase"]
            facts.pop("bar", None)
            console.print(_joined(facts), highlight=False, markup=False, soft_wrap=True)
    return status


@contextmanager
def _line(
    console: Console, facts: Callable[[], dict[str, str]], *, transient: bool = False
) -> Iterator[None]:
    """Show facts in one line for the block, updated by itself; facts that do not fit are left out.

    A narrow terminal keeps the phase and the share, or the seconds of a wait, for longest.
    """

    def drawn() -> Text:
        shown = facts()
        for name in _LEAVES:
            if len(_joined(shown)) < console.width:
                break
            shown.pop(name, None)
        return Text(_joined(shown), no_wrap=True, overflow="crop")

    with Live(
        get_renderable=drawn,
        console=console,
        refresh_per_second=_REDRAWN_A_SECOND,
        transient=transient,
    ):
        yield


def _joined(facts: dict[str, str]) -> str:
    return "  ".join(filter(None, facts.values()))


class _Progress:
    """A job's statuses over time, as facts; rates are over the last 10 seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._points: deque[tuple[float, int, int]] = deque()
        self._status: JobStatus | None = None

    def add(self, status: JobStatus) -> None:
        now = time.monotonic()
        if self._status is None or not self._status.pairs_per_s:
            self._points.clear()  # nothing was scored yet, and loading is not a part of the rate
        self._points.append((now, status.n_pairs_done, status.n_tokens))
        while now - self._points[0][0] > _RATE_OVER_S:
            self._points.popleft()
        self._status = status

    def facts(self) -> dict[str, str]:
        """Return what is known, by name: phase, share, bar, rows, rates, times and a reason."""
        status = self._status
        if status is None:
            return {"phase": "starting", "elapsed": _elapsed(self._started)}
        facts = {"phase": _phase(status)}
        is_waiting = not status.pairs_per_s and not status.state.is_final
        if is_waiting:
            facts["waited"] = _elapsed(self._started)  # nothing else moves
        if status.n_rows and not (is_waiting and not status.n_pairs_done):
            share = min(1.0, status.n_pairs_done / status.n_rows)
            facts["share"] = f"{int(100 * share)}%"
            full = int(_BAR_CHARS * share)
            facts["bar"] = "[" + "#" * full + "." * (_BAR_CHARS - full) + "]"
            rows = f"{status.n_pairs_done:,} of {count_text(status.n_rows, 'row')}"
            facts["rows"] = rows
        eta_s = self._add_rates(facts, status)
        if status.busy_share is not None and not status.state.is_final:
            facts["busy"] = f"busy {status.busy_share:.0%}"
        if not is_waiting:
            facts["elapsed"] = _elapsed(self._started)
        if eta_s is not None and not status.state.is_final:
            facts["ends"] = f"ends in {clock_text(eta_s)}"
        if not status.state.is_final:
            facts["why"] = status.reason
        return facts

    def _add_rates(self, facts: dict[str, str], status: JobStatus) -> int | None:
        """Add the rates, of the whole job where nothing moves, and return the seconds left."""
        (t0, pairs0, tokens0), (t1, pairs1, tokens1) = self._points[0], self._points[-1]
        if not status.state.is_final and t1 > t0 and pairs1 > pairs0:
            pairs_per_s = (pairs1 - pairs0) / (t1 - t0)
            facts["rate"] = f"{pairs_per_s:,.0f} rows/s"
            facts["tokens"] = f"{(tokens1 - tokens0) / (t1 - t0):,.0f} tokens/s"
            return int((status.n_rows - status.n_pairs_done) / pairs_per_s)
        if status.pairs_per_s:
            of = " while scoring" if status.state.is_final else ""
            facts["rate"] = f"{status.pairs_per_s:,.0f} rows/s{of}"
        return status.eta_s


def _phase(status: JobStatus) -> str:
    """Return the phase of the job in one to three words."""
    if status.state is JobState.RUNNING:
        # No shard has begun, or the first one has no score yet.
        return "scoring" if status.pairs_per_s else "loading the model"
    return _PHASES.get(status.state, str(status.state))


def _elapsed(started: float) -> str:
    return clock_text(time.monotonic() - started)
