"""Schedules put in, changed and taken out: checked first, then all at once or not at all."""

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
    """From the schedules that there are to those that are wanted."""

    added: tuple[ScheduleSpec, ...]
    changed: tuple[tuple[ScheduleSpec, ScheduleSpec], ...]
    removed: tuple[ScheduleSpec, ...]
    same: tuple[ScheduleSpec, ...]

    @property
    def new(self) -> list[ScheduleSpec]:
        """The definitions that are put in."""
        return [*self.added, *(after for _, after in self.changed)]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.changed or self.removed)


def changes(
    current: Sequence[ScheduleSpec], wanted: Sequence[ScheduleSpec], *, prune: bool = False
) -> Changes:
    """What must be done; what is not wanted is removed only by `prune`.

    Whether a schedule is paused stays as it is where the wanted one does not say.
    """
    before = {spec.name: spec for spec in current}
    after = {spec.name for spec in wanted}
    wanted = [_paused_as_before(spec, before.get(spec.name)) for spec in wanted]
    known = [spec for spec in wanted if spec.name in before]
    return Changes(
        added=tuple(spec for spec in wanted if spec.name not in before),
        changed=tuple((before[s.name], s) for s in known if before[s.name] != s),
        removed=tuple(spec for spec in current if prune and spec.name not in after),
        same=tuple(spec for spec in known if before[spec.name] == spec),
    )


def check_changes(store: Store, planned: Changes, now: datetime) -> None:
    """Look at each new definition, alone and beside the others.

    Raises:
        InputError: naming the schedule and what is wrong.
    """
    everything = [*planned.new, *planned.same]
    named = {spec.name for spec in (*everything, *planned.removed)}
    everything += [spec for spec in store.specs() if spec.name not in named]
    for spec in planned.new:
        _check(spec, everything, now)


def make(store: Store, planned: Changes, now: datetime) -> None:
    """Make the changes in one step.

    A schedule that is new begins now; the history that its runs' folders keep comes back.

    Raises:
        InputError: something is wrong; nothing was changed.
    """
    check_changes(store, planned, now)
    recorded = [firing for spec in planned.added for firing in runs.recorded(spec)]
    begins = [spec.name for spec in planned.added]
    begins += [after.name for before, after in planned.changed if _is_due_otherwise(before, after)]
    store.write(planned.new, dict.fromkeys(begins, now), [spec.name for spec in planned.removed])
    for firing in recorded:
        store.note_new(firing)


def _paused_as_before(spec: ScheduleSpec, before: ScheduleSpec | None) -> ScheduleSpec:
    if before is None or "paused" in spec.model_fields_set:
        return spec
    return spec.model_copy(update={"paused": before.paused})


def _is_due_otherwise(before: ScheduleSpec, after: ScheduleSpec) -> bool:
    return (before.cron, before.tz) != (after.cron, after.tz)


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
    cron, zone = Cron.parse(spec.cron), zone_named(spec.tz)
    due = next_due(cron, zone, now)
    if due is None:
        raise InputError(f"cron '{spec.cron}': there is no such day")
    check_answerable(map(parse_gate, spec.fail_if), has_qrels=spec.qrels is not None)
    if spec.qrels is not None:
        read_qrels(spec.qrels)
    inputs = [text for text in (spec.job.input_uri, spec.job.queries, spec.job.corpus) if text]
    for text in inputs:
        templates.check(text)
    templates.check(spec.output_uri, latest=False)
    if not templates.fixed_folder(spec.output_uri):
        raise InputError(f"{spec.output_uri}: begin with a folder that stays the same")
    job_spec = runs.job_spec(spec, due)
    if any(map(templates.tells_time, inputs)):
        check_options(job_spec)  # what is to be read may not be there yet
    else:
        check(job_spec)


def _check_apart(spec: ScheduleSpec, other: ScheduleSpec) -> None:
    """Two schedules with one `latest` would take it from each other."""
    ours, theirs = (templates.fixed_folder(each.output_uri) for each in (spec, other))
    if storage.lies_in(ours, theirs) or storage.lies_in(theirs, ours):
        raise InputError(f"{ours} is where schedule {other.name} writes ({theirs})")
