"""Write generated tables: settings, options and metrics from the code, models from their list.

python docs/tables.py README.md docs/metrics.md docs/models.md
"""

from __future__ import annotations

import json
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


def models_table() -> str:
    """Of docs/models.json, each row of which tests/unit/engine/test_zoo.py loads and scores."""
    models = json.loads(Path(__file__).with_name("models.json").read_text())
    header = ("model", "loaded as", "path", "activation", "`max_length`", "scores")
    return _table(header, map(_model_row, models))


def _model_row(row: dict[str, str]) -> tuple[str, ...]:
    name = row["model"] + (", its code allowed" if "code" in row else "")
    if "refused" in row:
        return name, "", "refused", "", "", row["refused"]
    facts = (f"`{row['architecture']}`", row["path"], row["activation"], str(row["max_length"]))
    return name, *facts, "equal"


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "options": options_table,
    "worker metrics": lambda: metrics_table(metrics.OF_WORKER),
    "cluster metrics": lambda: metrics_table(metrics.OF_CLUSTER),
    "recorded metrics": lambda: metrics_table(metrics.OF_RULES),
    "models": models_table,
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
