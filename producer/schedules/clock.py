"""The time that schedules go by; a test can replace it here to let a week pass in a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from rankmill.ledger.jobs import Ledger


def now(ledger: Ledger) -> datetime:
    """Return Redis's time in UTC, so that no machine's clock matters."""
    return datetime.fromtimestamp(ledger.now(), UTC)
