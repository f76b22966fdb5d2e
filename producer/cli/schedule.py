"""`rankmill schedule`: run jobs on a cron schedule."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from producer.cli.console import Console
from producer.cli.help import PanelCommand, example
from producer.cli.options import JsonFlag, flag, takes_job
from producer.cli.schedule_view import changes_lines, firings_table, schedule_facts, schedules_table
from producer.schedules import clock, facts
from producer.schedules import commands as hand
from producer.schedules.changes import changes, check_changes, first_due, make
from producer.schedules.file import read_file, schedule_spec
from producer.schedules.spec import Missed, Overlap, ScheduleSpec
from producer.schedules.store import Store
from rankmill.contract.job import JobOptions, JobSpec
from rankmill.errors import InputError
from rankmill.ledger.jobs import Ledger
from rankmill.settings import settings

app = typer.Typer(
    help="Run jobs on a cron schedule.\n\nNeeds a running rankmill beat.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name")]


def _option(field: str) -> Any:
    return typer.Option(help=ScheduleSpec.model_fields[field].description)


class _JobAfterDashes(PanelCommand):
    """A command that takes the job's arguments with `--` before them or without."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [each for each in args if each != "--"])


@app.command(
    cls=_JobAfterDashes,
    epilog=example('schedule add nightly in.parquet "out/{date}" --cron "0 2 * * *"'),
)
@takes_job
def add(
    name: NameArgument,
    spec: JobSpec,
    cron: Annotated[str, _option("cron")],
    tz: Annotated[str, _option("tz")] = "UTC",
    overlap: Annotated[Overlap, _option("overlap")] = "skip",
    missed: Annotated[Missed, _option("missed")] = "skip",
    grace_min: Annotated[int, _option("grace_min")] = 60,
    unless_unchanged: Annotated[
        bool, typer.Option("--unless-unchanged", help="Skip a run if its input has not changed")
    ] = False,
    deadline: Annotated[str | None, _option("deadline")] = None,
    fail_if: Annotated[list[str] | None, _option("fail_if")] = None,
    qrels: Annotated[str | None, _option("qrels")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a schedule.

    INPUT and OUTPUT may contain {date}, {due:%Y/%m/%d} and {latest:PATTERN}.
    """
    own = {
        **{"cron": cron, "tz": tz, "overlap": overlap, "missed": missed, "grace_min": grace_min},
        **{"unless_unchanged": unless_unchanged, "deadline": deadline},
        **{"fail_if": tuple(fail_if or ()), "qrels": qrels},
    }
    job = JobOptions(**spec.model_dump(exclude_unset=True, exclude={"output_uri"}))

    def typed(field: str) -> str:
        return "NAME" if field == "name" else flag(field)

    wanted = schedule_spec(name, job, spec.output_uri, own, f"schedule {name}", typed)
    first_due(wanted, datetime.now(UTC))  # a wrong time is reported also without a Redis
    ledger, store = _connect()
    planned = changes(store.specs(), [wanted])
    if planned.changed:
        raise InputError(
            f"schedule {name} already exists with a different definition; change it with rankmill "
            "schedule apply, or remove it first"
        )
    make(store, planned, clock.now(ledger))
    _print_schedules([store.read(name)], as_json)


@app.command(epilog=example("schedule apply schedules.toml --dry-run"))
def apply(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="TOML file with tables [schedule.NAME]")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the changes")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove schedules that FILE does not name")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply the schedules of a file.

    Shows the changes, then makes all of them or none.
    """
    wanted = read_file(file)
    ledger, store = _connect()
    planned = changes(store.specs(), wanted, prune=prune)
    check_changes(store, planned, clock.now(ledger))
    print(json.dumps(facts.changes(planned)) if as_json else "\n".join(changes_lines(planned)))
    if not (dry_run or planned.is_empty):
        if not yes:
            if not sys.stdin.isatty():
                raise InputError(
                    "nothing was changed; give --yes to make these changes, or --dry-run"
                )
            typer.confirm("Make these changes?", abort=True, err=True)
        make(store, planned, clock.now(ledger))


@app.command("list", epilog=example("schedule list"))
def list_schedules(as_json: JsonFlag = False) -> None:
    """List schedules with their next and last run."""
    _print_schedules(_connect()[1].specs(), as_json)


@app.command(epilog=example("schedule show nightly"))
def show(name: NameArgument, as_json: JsonFlag = False) -> None:
    """Show a schedule.

    Prints its definition, its next due times, its last run and the job that `latest` names.
    """
    ledger, store = _connect()
    shown = facts.schedule(ledger, store, store.read(name))
    if as_json:
        print(shown.model_dump_json())
    else:
        Console().print(schedule_facts(shown), soft_wrap=True)


@app.command(epilog=example("schedule pause nightly"))
def pause(name: NameArgument) -> None:
    """Pause a schedule.

    Nothing is due until it is resumed. A running job continues.
    """
    hand.set_paused(*_connect(), name, True)


@app.command(epilog=example("schedule resume nightly"))
def resume(name: NameArgument) -> None:
    """Resume a paused schedule.

    Missed runs are not made up.
    """
    hand.set_paused(*_connect(), name, False)


@app.command(epilog=example("schedule remove nightly"))
def remove(name: NameArgument) -> None:
    """Remove a schedule and its history.

    Its outputs stay, and a running job continues.
    """
    hand.remove(*_connect(), name)


@app.command(epilog=example("schedule run-now nightly"))
def run_now(name: NameArgument, as_json: JsonFlag = False) -> None:
    """Run a schedule now.

    Prints the job's id.
    """
    ledger, store = _connect()
    firing = hand.run_now(ledger, settings(), store, name)
    print(facts.firing(firing).model_dump_json() if as_json else firing.job_id)


@app.command(epilog=example("schedule accept nightly"))
def accept(name: NameArgument) -> None:
    """Accept the newest run that a gate held.

    `latest` names it from now on.
    """
    ledger, store = _connect()
    print(hand.accept(ledger, store, name).output_uri)


@app.command(epilog=example("schedule history nightly"))
def history(
    name: NameArgument,
    last: Annotated[int, typer.Option(min=1, help="Number of due times to show")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Show the outcome of each due time."""
    _, store = _connect()
    spec = store.read(name)
    firings = store.firings(name)[-last:]
    if as_json:
        print(json.dumps([facts.firing(each).model_dump(mode="json") for each in firings]))
    else:
        Console().print(firings_table(spec, firings))


def _connect() -> tuple[Ledger, Store]:
    return Ledger.connect(settings()), Store.connect(settings())


def _print_schedules(specs: Sequence[ScheduleSpec], as_json: bool) -> None:
    ledger, store = _connect()
    shown = [facts.schedule(ledger, store, spec) for spec in specs]
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in shown]))
    else:
        Console().print(schedules_table(shown))
