"""The console of commands: texts of users cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import console as rich_console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from rankmill.shown import escaped_lines

_NO_LIMIT = 100_000  # columns


class Console(rich_console.Console):
    """A rich console that escapes control characters of texts."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of a renderable, escaped."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escaped_lines(segment.text), segment.style)


def print_table(table: Table) -> None:
    """Print a table on stdout; a cell is cut or folded nowhere."""
    Console(width=_NO_LIMIT).print(table)


stderr = Console(stderr=True)


def say(line: str, style: str = "") -> None:
    """Print a remark on stderr."""
    stderr.print(
        f"rankmill: {line}", style=style, markup=False, highlight=False, emoji=False, soft_wrap=True
    )


def warn(line: str) -> None:
    """Print a warning on stderr."""
    say(line, "yellow")
