"""The start of `rankmill`: signals are handled before any slow import."""

from __future__ import annotations

import os
import signal
from types import FrameType

_INTERRUPTED = 130
# So many interrupts are meant: the clean-up does not end.
_PATIENCE = 4

_n_seen = 0


def main() -> None:
    """Run a command; Ctrl-C, SIGTERM and SIGHUP clean up and exit with 130, no traceback."""
    # A signal that is ignored already stays ignored, as SIGHUP under nohup.
    handled = [
        each
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    for each in handled:
        signal.signal(each, _leave)
    from producer.cli import app
    from rankmill.tables.pandas_on_demand import load_pandas_on_demand

    try:
        for each in handled:
            signal.signal(each, _interrupt)
        load_pandas_on_demand()
        app.main()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    finally:
        for each in handled:
            signal.signal(each, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    """Exit at once: no work has begun, or all is done."""
    os._exit(_INTERRUPTED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise once; a second Ctrl-C must not interrupt the clean-up after the first."""
    global _n_seen
    _n_seen += 1
    if _n_seen == 1:
        raise KeyboardInterrupt
    if _n_seen >= _PATIENCE:
        os._exit(_INTERRUPTED)
