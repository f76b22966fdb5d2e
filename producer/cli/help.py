"""The help of commands in plain text: options in panels, then an example."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class PanelCommand(TyperCommand):
    """A command whose help groups its options by their `rich_help_panel`."""

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
