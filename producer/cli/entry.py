"""Start `rankmill`: signals are handled before anything that takes time is imported."""

from __future__ import annotations

import os
import signal
from types import FrameType

_INTERRUPTED = 130
# Enough to be meant: what is being cleaned up does not end.
_PATIENCE = 4

_n_seen = 0


def main() -> None:
    """Run a command; Ctrl-C, SIGTERM and SIGHUP end it with 130, cleaned up and without a trace."""
    # What is ignored already stays so, as nohup has SIGHUP.
    handled = [
        each
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    for each in handled:
        signal.signal(each, _leave)
    from producer.cli import app

    try:
        for each in handled:
            signal.signal(each, _interrupt)
        app.main()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    finally:
        for each in handled:
            signal.signal(each, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    """End now: nothing is begun yet, or all is done."""
    os._exit(_INTERRUPTED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise once; a second Ctrl-C must not break off the clean-up that the first began."""
    global _n_seen
    _n_seen += 1
    if _n_seen == 1:
        raise KeyboardInterrupt
    if _n_seen >= _PATIENCE:
        os._exit(_INTERRUPTED)
