"""`rankmill`: the commands and their exit codes.

Exit 0 done, 1 the job failed, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from producer import profile
from producer.cli import following, judging, schedule, serve, submitting
from producer.cli import models as models_commands
from producer.cli.console import say, stderr
from producer.cli.doctor import doctor
from producer.cli.export_command import export_job
from producer.cli.help import PanelCommand, example
from rankmill.errors import InputError, RankmillError, unexpected
from rankmill.settings import unknown_variables

app = typer.Typer(
    help="Rerank very large candidate lists offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command of sys.argv; print a RankmillError as one line on stderr."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows a `?`
    for line in unknown_variables():
        say(line, "yellow")
    try:
        app(prog_name="rankmill", default_map=_defaults())
    except (RankmillError, MemoryError, OSError) as error:
        if debug:
            raise
        known = error if isinstance(error, RankmillError) else unexpected(error)
        stderr.print(f"rankmill: {known}", style="red", markup=False, emoji=False, soft_wrap=True)
        sys.exit(known.exit_code)


def _defaults() -> dict[str, Any]:
    """Use the profile, and return its defaults of the commands that take job options."""
    given = _taken_from_arguments("--profile")
    if given is not None:
        os.environ[profile.VARIABLE] = given
    found = profile.current()
    if found is None:
        return {}
    found.use()
    options = dict(found.options)
    if options and sys.argv[1:2] in (["run"], ["submit"], ["estimate"]):
        say(f"defaults from {found.path}: {', '.join(map(profile.key_of, options))}")
    commands = {name: options for name in ("run", "submit", "estimate")}
    return {**commands, "schedule": {"add": options}, "models": {"compare": options}}


def _taken_from_arguments(flag: str) -> str | None:
    """Take a flag with its value from sys.argv, wherever it is; return the value."""
    value = None
    for at in range(len(sys.argv) - 1, 0, -1):
        name, equals, text = sys.argv[at].partition("=")
        if name != flag:
            continue
        if not equals:
            if at + 1 == len(sys.argv):
                raise InputError(f"{flag} needs the name of a profile, or a file")
            text = sys.argv.pop(at + 1)
        del sys.argv[at]
        value = value or text
    return value


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"rankmill {version('rankmill')}")
        raise typer.Exit


@app.callback()
def general(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit"
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback on an error; goes anywhere")
    ] = False,
    profile_name: Annotated[
        str | None,
        typer.Option("--profile", help="Profile of rankmill.toml, or a file; goes anywhere"),
    ] = None,
) -> None:
    """Rerank very large candidate lists offline."""


_COMMANDS = (
    (submitting.run, "run candidates.parquet scored/ --model demo --top-k 10"),
    (submitting.submit, "submit candidates.parquet scored/ --top-k 10"),
    (submitting.estimate, "estimate candidates.parquet --model demo"),
    (following.status, "status scored/"),
    (following.watch, "watch scored/"),
    (following.cancel, "cancel scored/"),
    (following.resume, "resume scored/"),
    (following.retry_rejects, "retry-rejects scored/"),
    (following.report, "report scored/ --qrels judgments.qrels"),
    (following.jobs, "jobs"),
    (judging.evaluate_job, "eval scored/ --qrels judgments.qrels"),
    (export_job, "export scored/ --to st-triplets --out triplets.parquet"),
    (judging.compare_jobs, 'diff monday/ tuesday/ --fail-if "churn@10>0.3"'),
    (doctor, "doctor"),
    (serve.worker, "worker"),
    (serve.exporter, "exporter"),
    (serve.flower, "flower --port 5555"),
    (serve.beat, "beat"),
    (serve.up, "up --flower-port 5555"),
)
for _command, _example in _COMMANDS:
    app.command(_example.split()[0], cls=PanelCommand, epilog=example(_example))(_command)
app.add_typer(schedule.app, name="schedule")
app.add_typer(models_commands.app, name="models")
