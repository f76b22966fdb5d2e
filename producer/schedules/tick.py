"""Bring every schedule up to date: follow runs, note due times, start what is due.

Any number of ticks may run at once or die half way. A due time is noted once, before anything
acts on it. Each later tick then continues until the firing has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from producer.schedules import clock
from producer.schedules.compare import compare
from producer.schedules.cron import Cron
from producer.schedules.due import due_between, zone_named
from producer.schedules.policy import decide
from producer.schedules.running import follow, reopened
from producer.schedules.spec import Firing, FiringState, ScheduleSpec, due_key
from producer.schedules.start import start
from producer.schedules.store import KEPT_FIRINGS, Store
from rankmill.errors import BrokerUnavailable, RankmillError
from rankmill.ledger.jobs import Ledger
from rankmill.logs import get_logger
from rankmill.settings import Settings

log = get_logger(__name__)

# Another tick may run after this time. A tick that takes longer is not harmed by the next.
_TURN_S = 60.0

Do = Callable[[Ledger, Settings, Store, ScheduleSpec], None]


def tick(ledger: Ledger, settings: Settings) -> None:
    """Update every schedule; an error in one does not stop the others.

    Raises:
        BrokerUnavailable: Redis does not answer; the next tick catches up.
    """
    if not ledger.take_turn("tick", _TURN_S):
        return
    store = Store.connect(settings)
    try:
        _for_each(ledger, settings, store, update)
    finally:
        ledger.end_turn("tick")
    # Comparing may take minutes; other ticks need not wait for it.
    _for_each(ledger, settings, store, compare_ended)


def _for_each(ledger: Ledger, settings: Settings, store: Store, do: Do) -> None:
    for name in store.names():
        try:
            do(ledger, settings, store, store.read(name))
        except BrokerUnavailable:
            raise
        except RankmillError as error:
            log.error("schedule update failed", schedule=name, error=str(error))
        except Exception:  # the other schedules are due, too
            log.exception("schedule update failed", schedule=name)


def update(ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec) -> None:
    """Bring one schedule up to date."""
    now = clock.now(ledger)
    firings = _followed(ledger, store, spec, store.firings(spec.name), now)
    _note_due(store, spec, firings, now)
    firing = next_to_start(store, spec)
    if firing is not None:
        start(ledger, settings, store, spec, firing)


def compare_ended(ledger: Ledger, settings: Settings, store: Store, spec: ScheduleSpec) -> None:
    """Compare the runs whose jobs have succeeded with the run before."""
    for firing in store.firings(spec.name):
        if firing.state is FiringState.COMPARING:
            compare(ledger, settings, store, spec, firing)


def _followed(
    ledger: Ledger, store: Store, spec: ScheduleSpec, firings: list[Firing], now: datetime
) -> list[Firing]:
    """Return all firings with their current states."""
    ran = [firing for firing in firings if firing.output_uri is not None]
    last_run = ran[-1] if ran else None
    followed = []
    for was in firings:
        firing = was
        if was is last_run and was.state in (FiringState.FAILED, FiringState.CANCELLED):
            firing = reopened(ledger, was)
        if firing.state is FiringState.RUNNING:
            firing = follow(ledger, spec, firing, now)
        if firing is not was:
            store.note(firing)
        followed.append(firing)
    return followed


def _note_due(store: Store, spec: ScheduleSpec, firings: list[Firing], now: datetime) -> None:
    """Note every due time since the previous tick, then set `seen` to now."""
    seen = store.seen(spec.name)
    if seen is not None and not spec.paused:
        dues = due_between(Cron.parse(spec.cron), zone_named(spec.tz), seen, now)[-KEPT_FIRINGS:]
        open_firings = [firing for firing in firings if firing.state.is_open]
        for decided in decide(spec, dues, now, open_firings):
            noted = Firing(
                schedule=spec.name,
                due=decided.due,
                state=decided.state,
                message=decided.message,
                noted_at=now,
            )
            if store.note_new(noted):
                log.info("due", schedule=spec.name, due=due_key(decided.due), becomes=decided.state)
        if dues:
            store.forget_old(spec.name)
    store.set_seen(spec.name, max(seen or now, now))


def next_to_start(store: Store, spec: ScheduleSpec) -> Firing | None:
    """Return the first firing to start, or None while a run is open: runs never overlap."""
    open_firings = [firing for firing in store.firings(spec.name) if firing.state.is_open]
    if any(firing.state.is_at_work for firing in open_firings):
        return None
    starting = [firing for firing in open_firings if firing.state is FiringState.STARTING]
    if starting:
        return starting[0]
    if spec.paused or not open_firings:
        return None
    return store.note(open_firings[0].became(FiringState.STARTING))
