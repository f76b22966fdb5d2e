"""What time it is for schedules; the one place at which a test can let a week pass in a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from rankmill.ledger.jobs import Ledger


def now(ledger: Ledger) -> datetime:
    """Redis's time in UTC, so that no machine's clock matters."""
    return datetime.fromtimestamp(ledger.now(), UTC)
