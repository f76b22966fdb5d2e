"""Check beat: exit with 1 and the reason if no beat holds its lock although Redis answers.

python docker/beat_health.py

Beat renews its lock at each check of the schedules. The lock expires soon after the last renewal.
Beat is healthy while Redis is away: it waits, and a restart would not help.
"""

from __future__ import annotations

import signal
import sys

from redbeat.schedulers import ensure_conf

from rankmill.broker import app
from rankmill.errors import BrokerUnavailable
from rankmill.ledger.client import broker_errors, connect
from rankmill.settings import settings

# Docker and Kubernetes wait 10 s for the whole check.
ANSWER_S = 7


def main() -> None:
    """Print `healthy` or what is wrong, on one line, and exit."""
    signal.signal(signal.SIGALRM, no_answer)
    signal.alarm(ANSWER_S)
    try:
        with broker_errors():
            is_held = connect(settings()).exists(ensure_conf(app()).lock_key)
    except BrokerUnavailable as error:
        print(f"healthy: {error}")
        return
    print("healthy" if is_held else "beat does not hold its lock")
    sys.exit(0 if is_held else 1)


def no_answer(*_: object) -> None:
    """End the check when Redis takes too long."""
    print(f"healthy: Redis does not answer within {ANSWER_S} s")
    sys.exit(0)


if __name__ == "__main__":
    main()
