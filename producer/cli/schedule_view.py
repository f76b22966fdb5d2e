"""Views of schedules, with times in the time zone of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import clock_text, facts_text
from producer.schedules.changes import Changes
from producer.schedules.due import zone_named
from producer.schedules.facts import ScheduleFacts, differences
from producer.schedules.spec import Firing, ScheduleSpec


def schedules_table(shown: Sequence[ScheduleFacts]) -> Table:
    """Return a line for each schedule, with its next due time and its last run."""
    table = Table("schedule", "cron", "zone", "next", "last", box=None, pad_edge=False)
    for each in shown:
        due = f"{each.next_due[0]:%Y-%m-%d %H:%M}" if each.next_due else "paused"
        last = str(each.last.state) if each.last else "never due yet"
        late = " (late)" if each.late else ""
        cells = (each.spec.name, each.spec.cron, each.spec.tz, due, last + late)
        table.add_row(*map(Text, cells))
    return table


def schedule_facts(shown: ScheduleFacts) -> Text:
    """Return all facts of one schedule."""
    spec, last = shown.spec, shown.last
    options = spec.job.model_dump(exclude_defaults=True, exclude={"input_uri"})
    on_clock = [f"{due:%a %Y-%m-%d %H:%M %Z}" for due in shown.next_due]
    facts = [
        ("schedule", spec.name),
        ("cron", f"{spec.cron} in the time zone {spec.tz}"),
        ("next", ", ".join(on_clock) or "paused"),
        ("input", spec.job.input_uri),
        ("output", spec.output_uri),
        ("options", ", ".join(f"{name}={value}" for name, value in options.items()) or "none"),
        ("policies", f"overlap {spec.overlap}, missed {spec.missed} after {spec.grace_min} min"),
        ("unchanged", "no run" if spec.unless_unchanged else "runs again"),
        ("deadline", (spec.deadline or "none") + (", missed" if shown.late else "")),
        ("gates", ", ".join(spec.fail_if) or "none"),
        ("judgments", spec.qrels or "none"),
        ("latest", shown.latest.output_uri if shown.latest else "none yet"),
    ]
    if last is not None:
        when = last.due.astimezone(zone_named(spec.tz))
        why = f": {last.message}" if last.message else ""
        facts.append(("last", f"{when:%Y-%m-%d %H:%M} {last.state}{why}"))
    return facts_text(facts)


def firings_table(spec: ScheduleSpec, firings: Sequence[Firing]) -> Table:
    """Return a line for each due time, with its outcome."""
    table = Table("due", "outcome", "took", "job", "", box=None, pad_edge=False)
    zone = zone_named(spec.tz)
    for each in firings:
        manually = " manually" if each.by_hand else ""
        late = "late; " if each.late_at else ""
        cells = (
            f"{each.due.astimezone(zone):%Y-%m-%d %H:%M}{manually}",
            str(each.state),
            clock_text((each.ended_at - each.started_at).total_seconds())
            if each.started_at and each.ended_at
            else "",
            each.job_id if each.output_uri else "",
            (late + each.message).removesuffix("; "),
        )
        table.add_row(*map(Text, cells))
    return table


def changes_lines(planned: Changes) -> Iterator[str]:
    """Yield a line for each schedule: added +, changed ~, removed -, the same =."""
    for spec in planned.added:
        yield f"+ {spec.name}: {spec.cron} {spec.tz}, {spec.job.input_uri} to {spec.output_uri}"
    for before, after in planned.changed:
        yield f"~ {after.name}"
        for name, (old, new) in differences(before, after).items():
            yield f"    {name}: {old} -> {new}"
    for spec in planned.removed:
        yield f"- {spec.name}"
    for spec in planned.same:
        yield f"= {spec.name}"
