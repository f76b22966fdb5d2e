"""`rankmill`: the commands and their exit codes.

Exit 0 done, 1 the job failed, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer

from producer import profile
from producer.cli.console import say, stderr
from producer.cli.help import PanelCommand, example
from rankmill.errors import InputError, RankmillError, unexpected
from rankmill.settings import unknown_variables

# Of click, or of the copy of it in typer.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command of sys.argv; print an error as one line on stderr."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows a `?`
    for line in unknown_variables():
        say(line, "yellow")
    try:
        defaults = _defaults()
        wanted = sys.argv[1:2]
        is_known = not {*wanted}.isdisjoint((*_COMMANDS, *_GROUPS))
        # A worker starts without the modules of the other commands, which take 0.4 s.
        app = app_of(*wanted) if is_known else whole_app()
        code = app(prog_name="rankmill", default_map=defaults, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except _UsageError as error:
        _show_usage_error(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        say("nothing was done", "yellow")
        sys.exit(1)
    except (RankmillError, MemoryError, OSError) as error:
        if debug:
            raise
        known = error if isinstance(error, RankmillError) else unexpected(error)
        stderr.print(f"rankmill: {known}", style="red", markup=False, emoji=False, soft_wrap=True)
        sys.exit(known.exit_code)


def _show_usage_error(error: Any) -> None:
    message = error.format_message()
    if "\n" in message:  # the help, where nothing was given
        error.show()
        return
    command = error.ctx.command_path if error.ctx is not None else "rankmill"
    say(f"{message.removesuffix('.')}; see {command} --help", "red")


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


# The module of each command and its function, and an example.
_COMMANDS = {
    "run": ("submitting.run", "run candidates.parquet scored/ --model demo --top-k 10"),
    "submit": ("submitting.submit", "submit candidates.parquet scored/ --top-k 10"),
    "estimate": ("submitting.estimate", "estimate candidates.parquet --model demo"),
    "status": ("following.status", "status scored/"),
    "watch": ("following.watch", "watch scored/"),
    "cancel": ("following.cancel", "cancel scored/"),
    "resume": ("following.resume", "resume scored/"),
    "retry-rejects": ("following.retry_rejects", "retry-rejects scored/"),
    "report": ("following.report", "report scored/ --qrels judgments.qrels"),
    "jobs": ("following.jobs", "jobs"),
    "eval": ("judging.evaluate_job", "eval scored/ --qrels judgments.qrels"),
    "export": (
        "export_command.export_job",
        "export scored/ --to st-triplets --out triplets.parquet",
    ),
    "diff": ("judging.compare_jobs", 'diff monday/ tuesday/ --fail-if "churn@10>0.3"'),
    "doctor": ("doctor.doctor", "doctor"),
    "worker": ("serve.worker", "worker"),
    "exporter": ("serve.exporter", "exporter"),
    "flower": ("serve.flower", "flower --port 5555"),
    "beat": ("serve.beat", "beat"),
    "up": ("serve.up", "up --flower-port 5555"),
}
_GROUPS = ("schedule", "models")


def app_of(*names: str) -> typer.Typer:
    """Return the app with some commands and groups of commands; each imports its own modules."""
    made = typer.Typer(
        help="Rerank very large candidate lists offline.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    made.callback()(general)
    for name in names:
        if name in _GROUPS:
            made.add_typer(import_module(f"producer.cli.{name}").app, name=name)
            continue
        place, shown = _COMMANDS[name]
        module, _, function = place.partition(".")
        command = getattr(import_module(f"producer.cli.{module}"), function)
        made.command(name, cls=PanelCommand, epilog=example(shown))(command)
    return made


def whole_app() -> typer.Typer:
    """Return the app with all of its commands."""
    return app_of(*_COMMANDS, *_GROUPS)
