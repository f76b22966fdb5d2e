"""Add, change and remove schedules: check first, then write all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from producer.jobs.check import check, check_options
from producer.quality.drift.gate import check_answerable
from producer.quality.drift.gate import parse as parse_gate
from producer.quality.qrels import read_qrels
from producer.schedules import runs, templates
from producer.schedules.cron import Cron
from producer.schedules.due import next_due, zone_named
from producer.schedules.spec import ScheduleSpec
from producer.schedules.store import Store
from rankmill import storage
from rankmill.errors import InputError


@dataclass(frozen=True)
class Changes:
    """The difference between the existing schedules and the wanted ones."""

    added: tuple[ScheduleSpec, ...]
    changed: tuple[tuple[ScheduleSpec, ScheduleSpec], ...]
    removed: tuple[ScheduleSpec, ...]
    same: tuple[ScheduleSpec, ...]

    @property
    def new(self) -> list[ScheduleSpec]:
        """The definitions to write."""
        return [*self.added, *(after for _, after in self.changed)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be written or removed."""
        return not (self.added or self.changed or self.removed)


def changes(
    current: Sequence[ScheduleSpec], wanted: Sequence[ScheduleSpec], *, prune: bool = False
) -> Changes:
    """Return what leads from the current schedules to the wanted ones.

    A schedule stays paused, or not, unless the wanted definition sets `paused`.

    Args:
        current: the definitions in Redis.
        wanted: the definitions to have.
        prune: remove current schedules that are not wanted.
    """
    before = {spec.name: spec for spec in current}
    after = {spec.name for spec in wanted}
    wanted = [
        spec
        if spec.name not in before or "paused" in spec.model_fields_set
        else spec.model_copy(update={"paused": before[spec.name].paused})
        for spec in wanted
    ]
    known = [spec for spec in wanted if spec.name in before]
    return Changes(
        added=tuple(spec for spec in wanted if spec.name not in before),
        changed=tuple((before[s.name], s) for s in known if before[s.name] != s),
        removed=tuple(spec for spec in current if prune and spec.name not in after),
        same=tuple(spec for spec in known if before[spec.name] == spec),
    )


def check_changes(store: Store, planned: Changes, now: datetime) -> None:
    """Check each new definition, alone and against the others.

    Raises:
        InputError: naming the schedule and what is wrong.
    """
    everything = [*planned.new, *planned.same]
    named = {spec.name for spec in (*everything, *planned.removed)}
    everything += [spec for spec in store.specs() if spec.name not in named]
    for spec in planned.new:
        _check(spec, everything, now)


def make(store: Store, planned: Changes, now: datetime) -> None:
    """Write the changes in one step.

    A new schedule begins now. The history in its runs' folders is read back.

    Raises:
        InputError: something is wrong; nothing was changed.
    """
    check_changes(store, planned, now)
    recorded = [firing for spec in planned.added for firing in runs.recorded(spec)]
    begins = [spec.name for spec in planned.added]
    begins += [
        after.name
        for before, after in planned.changed
        if (before.cron, before.tz) != (after.cron, after.tz)
    ]
    store.write(planned.new, dict.fromkeys(begins, now), [spec.name for spec in planned.removed])
    for firing in recorded:
        store.note_new(firing)


def _check(spec: ScheduleSpec, everything: Iterable[ScheduleSpec], now: datetime) -> None:
    try:
        check_alone(spec, now)
        for other in everything:
            if other.name != spec.name:
                _check_apart(spec, other)
    except InputError as error:
        raise InputError(f"schedule {spec.name}: {error}") from error


def check_alone(spec: ScheduleSpec, now: datetime) -> None:
    """Check what a schedule needs for its next run.

    Raises:
        InputError: its times, input, model, output or gates are wrong.
    """
    due = first_due(spec, now)
    check_answerable(map(parse_gate, spec.fail_if), has_qrels=spec.qrels is not None)
    if spec.qrels is not None:
        read_qrels(spec.qrels)
    inputs = [text for text in (spec.job.input_uri, spec.job.queries, spec.job.corpus) if text]
    for text in inputs:
        templates.check(text)
    templates.check(spec.output_uri, latest=False)
    if not templates.fixed_folder(spec.output_uri):
        raise InputError(f"{spec.output_uri}: begin with a folder without a template")
    job_spec = runs.job_spec(spec, due)
    if any(map(templates.depends_on_time, inputs)):
        check_options(job_spec)  # what is to be read may not be there yet
    else:
        check(job_spec)


def first_due(spec: ScheduleSpec, now: datetime) -> datetime:
    """Return when a schedule is due next.

    Raises:
        InputError: its cron line or its time zone is wrong.
    """
    due = next_due(Cron.parse(spec.cron), zone_named(spec.tz), now)
    if due is None:
        raise InputError(f"cron '{spec.cron}': no such day exists")
    return due


def _check_apart(spec: ScheduleSpec, other: ScheduleSpec) -> None:
    """Refuse two schedules in one folder: each would overwrite the other's `latest`."""
    own, others = (templates.fixed_folder(each.output_uri) for each in (spec, other))
    if storage.lies_in(own, others) or storage.lies_in(others, own):
        raise InputError(f"{own}: schedule {other.name} writes to {others}; give another folder")
