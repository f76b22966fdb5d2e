"""Check schedules: which are paused, and which would not be submitted."""

from __future__ import annotations

from collections.abc import Iterator

from producer.doctor.finding import Finding, ok, warning
from producer.schedules import clock
from producer.schedules.changes import check_alone
from producer.schedules.spec import FiringState
from producer.schedules.store import Store
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.settings import Settings


def check_schedules(settings: Settings) -> Iterator[Finding]:
    """Check every schedule; `check_redis` reports a Redis that is not set or does not answer."""
    if "broker_url" not in settings.model_fields_set:
        return
    store, ledger = Store.connect(settings), Ledger.connect(settings)
    try:
        names = store.names()
        for name in names:
            yield from _schedule(store, ledger, name)
    except BrokerUnavailable:
        return
    if names:
        yield ok("schedules", f"{len(names)}; rankmill schedule list shows them")


def _schedule(store: Store, ledger: Ledger, name: str) -> Iterator[Finding]:
    label = f"schedule {name}"
    try:
        spec = store.read(name)
        if spec.paused:
            fix = f"rankmill schedule resume {name}, if that is not intended"
            yield warning(label, "is paused: nothing is due", fix)
            return
        check_alone(spec, clock.now(ledger))
    except BrokerUnavailable:
        raise
    except RankmillError as error:
        fix = "change it with rankmill schedule apply, or remove it"
        yield warning(label, f"its next run would not be submitted: {error}", fix)
    last = next(iter(reversed(store.firings(name))), None)
    if last is not None and last.state in (FiringState.NOT_SUBMITTED, FiringState.MISSED):
        why = f"; {last.message}" if last.message else ""
        yield warning(
            label,
            f"the run of {last.due:%Y-%m-%d %H:%M %Z} was {last.state}{why}",
            f"see rankmill schedule history {name}",
        )
