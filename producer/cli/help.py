"""Commands whose help is plain text, with options in panels, and whose errors are short."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperCommand

from rankmill.wrong_value import wrong_value


class PanelCommand(TyperCommand):
    """A command whose help groups its options by their `rich_help_panel`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; an error has the value and none of pydantic's words."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                first = cause.errors(include_url=False)[0]
                value = "" if first["type"] == "value_error" else f"{first['input']!r} "
                error.message = value + wrong_value(cause)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments, then one for each panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                title = "Arguments" if is_argument else "Options"
                panel = getattr(parameter, "rich_help_panel", None) or title
                panels.setdefault(panel, []).append(record)
        panels["Options"] = panels.pop("Options", [])  # general ones last
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def example(command: str) -> str:
    """Return the epilog that shows one command, without the program's name, as typed."""
    return f"\b\nExample:\n  $ rankmill {command}"
