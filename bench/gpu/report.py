"""The rows of a card as tables in Markdown, and whether they meet the bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A figure that a result must reach.

    Attributes:
        call: the call whose result it is about.
        figure: a field of the row `result`.
    """

    call: str
    figure: str
    at_least: float


BARS = (
    Bar("speed bge plain", "times_best_peer", 3.0),
    Bar("speed bge plain", "peak_share", 0.6),
    Bar("speed minilm plain", "times_best_peer", 8.0),
    Bar("speed demo plain", "top10_overlap", 0.99),
)

_RESULT = {
    "pairs_per_s": "{:,.0f}",
    "times_best_peer": "{:.2f}",
    "best_peer": "{}",
    "best_batch": "{}",
    "peak_share": "{:.0%}",
    "top10_overlap": "{:.3f}",
}
_MEMORY = {
    "precision": "{}",
    "n_parameters": "{:,}",
    "loaded_bytes": "{:,}",
    "peak_bytes": "{:,}",
    "max_batch_tokens": "{:,}",
}
_OTHERS = ("out_of_memory", "failed", "left_out", "cut_off", "killed", "ended")


def report(rows: Sequence[Row]) -> str:
    """Return the tables of what was measured, then the bars, then all that was not measured."""
    kinds = ("start", "run", "together", "two", "kernel", "tests")
    times = [row for row in rows if row["kind"] in kinds]
    others = [row for row in rows if row["kind"] in _OTHERS]
    parts = [
        _table(_of_kind(rows, "result"), _RESULT),
        _table(_of_kind(rows, "memory"), _MEMORY),
        "\n".join(f"- {row['call']}: {row['kind']} {_facts(row)}" for row in times),
        "\n".join(f"- {verdict(bar, rows)}" for bar in BARS),
        "\n".join(f"- {row['call']}: {row['kind']} {_facts(row)}" for row in others),
    ]
    return "\n\n".join(part for part in parts if part)


def verdict(bar: Bar, rows: Sequence[Row]) -> str:
    """Return whether the last result of the bar's call meets it, or that it was not measured."""
    found = [row for row in _of_kind(rows, "result") if row["call"] == bar.call]
    value = found[-1].get(bar.figure) if found else None
    about = f"{bar.call}: {bar.figure} at least {bar.at_least:g}"
    if value is None:
        return f"{about}: not measured"
    return f"{about}: {'met' if value >= bar.at_least else 'missed'}, {value:.3g}"


def _of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    if not rows:
        return ""
    lines = [("call", *columns), ("---",) * (len(columns) + 1)]
    for row in rows:
        cells = [
            shown.format(row[name]) if row.get(name) is not None else "-"
            for name, shown in columns.items()
        ]
        lines.append((row["call"], *cells))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _facts(row: Row) -> str:
    facts = {name: value for name, value in row.items() if name not in ("call", "kind", "at_s")}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts.items()
    )
