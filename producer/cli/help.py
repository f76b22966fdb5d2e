"""Commands whose help is plain text, with options in panels, and whose errors are short."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class PanelCommand(TyperCommand):
    """A command whose help groups its options by their `rich_help_panel`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; an error leaves out the words that pydantic begins with."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
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
