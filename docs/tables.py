"""Write generated tables: settings from Settings, options from JobSpec, metrics from their list.

python docs/tables.py README.md docs/metrics.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from producer.cli.options import flag
from rankmill import metrics
from rankmill.metrics import Metric
from rankmill.settings import Settings
from rankmill.spec import JobSpec


def settings_table() -> str:
    rows = (
        (f"`RANKMILL_{name.upper()}`", f"`{field.default}`", field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return _table(("variable", "default", "meaning"), rows)


def options_table() -> str:
    rows = (
        (f"`{flag(name)}`", _default(field), field.description or "")
        for name, field in JobSpec.model_fields.items()
        if field.description
    )
    return _table(("option", "default", "meaning"), rows)


def metrics_table(declared: Iterable[Metric]) -> str:
    rows = (
        (f"`{each.name}`", each.kind, " ".join(f"`{name}`" for name in each.labels), each.meaning)
        for each in declared
    )
    return _table(("metric", "kind", "labels", "meaning"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "options": options_table,
    "worker metrics": lambda: metrics_table(metrics.OF_WORKER),
    "cluster metrics": lambda: metrics_table(metrics.OF_CLUSTER),
    "recorded metrics": lambda: metrics_table(metrics.OF_RULES),
}


def with_tables(text: str) -> str:
    """The text with what stands between each pair of markers made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        replacement = f"{begin}\n{table()}{end}"
        text = re.sub(pattern, lambda _, new=replacement: new, text, flags=re.DOTALL)
    return text


def _default(field: FieldInfo) -> str:
    return "" if field.default is None else f"`{field.default}`"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(with_tables(path.read_text()))
