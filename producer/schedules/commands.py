"""Pause, resume, remove and run a schedule, and accept a run that a gate held."""

from __future__ import annotations

from producer.schedules import clock, runs
from producer.schedules.policy import behind
from producer.schedules.spec import Firing, FiringState, ScheduleSpec
from producer.schedules.start import start
from producer.schedules.store import Store
from producer.schedules.tick import next_to_start
from rankmill.errors import InputError
from rankmill.ledger.jobs import Ledger
from rankmill.ledger.server import check_takes_writes
from rankmill.settings import Settings


def set_paused(ledger: Ledger, store: Store, name: str, paused: bool) -> ScheduleSpec:
    """Pause or resume a schedule; runs missed while it is paused are not made up."""
    spec = store.read(name)
    if spec.paused == paused:
        return spec
    spec = spec.model_copy(update={"paused": paused})
    store.write([spec], {} if paused else {name: clock.now(ledger)})
    return spec


def remove(ledger: Ledger, store: Store, name: str) -> None:
    """Forget a schedule and its history; its outputs stay and a running job goes on."""
    store.read(name)
    store.write([], {}, [name])
    ledger.note_late(name, None)


def accept(ledger: Ledger, store: Store, name: str) -> Firing:
    """Publish the newest run as `latest` although a gate held it.

    Raises:
        InputError: no gate holds the last run.
    """
    spec = store.read(name)
    done = (FiringState.SUCCEEDED, FiringState.HELD)
    ran = [firing for firing in store.firings(name) if firing.state in done]
    if not ran or ran[-1].state is not FiringState.HELD:
        raise InputError(f"schedule {name}: no gate holds its last run")
    check_takes_writes(ledger.redis)
    runs.publish_latest(spec, ran[-1], clock.now(ledger))
    accepted = ran[-1].became(FiringState.SUCCEEDED, f"accepted although {ran[-1].message}")
    runs.keep_record(accepted)
    return store.note(accepted)


def run_now(ledger: Ledger, settings: Settings, store: Store, name: str) -> Firing:
    """Run a schedule as if it were due now, whether its input changed or not.

    If a run is open, the new one waits for it, as the schedule's overlap policy says.

    Raises:
        InputError: a run is open and the policy is to skip, or the job cannot be submitted.
    """
    spec, now = store.read(name), clock.now(ledger).replace(microsecond=0)
    open_firings = [firing for firing in store.firings(name) if firing.state.is_open]
    if open_firings and spec.overlap == "skip":
        raise InputError(f"schedule {name}: {behind(open_firings)}")
    state = FiringState.WAITING if open_firings else FiringState.STARTING
    firing = Firing(schedule=name, due=now, state=state, noted_at=now, by_hand=True)
    if not store.note_new(firing):
        raise InputError(f"schedule {name}: another run was noted in this second; try again")
    first = next_to_start(store, spec)
    if first is not None and first.due == firing.due:
        firing = start(ledger, settings, store, spec, first)
    if firing.state is FiringState.NOT_SUBMITTED:
        raise InputError(f"schedule {name}: {firing.message}")
    return firing
