"""A progress bar for scripts and notebooks: tqdm's where it is installed, else plain text."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

# Called with what is done now, the pairs that are done, and all pairs.
Show = Callable[[str, int, int], None]

_LINE_EVERY_S = 10.0  # off a terminal
_REDRAW_EVERY_S = 0.2


@contextmanager
def progress_bar(is_shown: bool) -> Iterator[Show]:
    """Yield what shows the progress on stderr, or below a notebook's cell."""
    if not is_shown:
        yield lambda doing, n_done, n_all: None
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a notebook has no widgets
            from tqdm.auto import tqdm
    except ImportError:
        yield from _plain_text()
        return
    bars: list[tqdm[Never]] = []

    def show(doing: str, n_done: int, n_all: int) -> None:
        bar = bars[0] if bars else tqdm(unit="pair", dynamic_ncols=True)
        bars[:] = [bar]
        bar.total, bar.n = n_all or None, n_done
        bar.set_description_str(doing, refresh=False)
        bar.refresh()

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()


def _plain_text() -> Iterator[Show]:
    is_terminal, shown_at, last = sys.stderr.isatty(), float("-inf"), ""
    begin, end = ("\r\x1b[K", "") if is_terminal else ("", "\n")

    def show(doing: str, n_done: int, n_all: int) -> None:
        nonlocal shown_at, last
        every_s = _REDRAW_EVERY_S if is_terminal else _LINE_EVERY_S
        is_over = 0 < n_all <= n_done
        if time.monotonic() - shown_at < every_s and doing == last and not is_over:
            return
        shown_at, last = time.monotonic(), doing
        share = f": {n_done:,} of {n_all:,} pairs" if n_all else ""
        print(f"{begin}{doing}{share}", end=end, file=sys.stderr, flush=True)

    yield show
    if is_terminal:
        print(file=sys.stderr)
