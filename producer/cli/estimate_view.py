"""The figures of `rankmill estimate` in 80 columns: facts, then the lengths of the pairs."""

from __future__ import annotations

from textwrap import fill

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import facts_text
from producer.estimates.estimate import Estimate
from producer.estimates.forecast import LengthBin, Pace, Tokens

_BAR_COLUMNS = 48
_VALUE_COLUMNS = 66


def estimate_view(estimate: Estimate) -> RenderableType:
    """Return the facts of an estimate, and a histogram of the lengths if there are tokens."""
    facts = facts_text([(name, fill(value, _VALUE_COLUMNS)) for name, value in _facts(estimate)])
    if estimate.tokens is None:
        return facts
    return Group(facts, "", *_histogram(estimate.tokens.histogram))


def _facts(found: Estimate) -> list[tuple[str, str]]:
    size = f"{_count(found.n_rows, 'row')} in {_count(found.n_files, 'file')}"
    facts = [
        ("input", f"{size}, {decimal(found.n_bytes)}"),
        ("queries", _queries(found)),
        ("shards", f"{found.n_shards:,}"),
        ("sample", _sample(found)),
        ("duplicates", f"{found.duplicate_share:.1%} of the sample"),
        *([("titles", f"column '{found.title_col}' before each text")] if found.title_col else []),
        ("model", _model(found)),
        ("tokens", _tokens(found.tokens) if found.tokens else "none: nothing is tokenized"),
    ]
    if found.tokens:
        cut, padding = found.tokens.truncated_share, found.tokens.padding_share
        facts += [
            ("truncated", f"{cut:.1%} of the sample, at {found.tokens.max_length:,} tokens"),
            ("padding", f"{padding:.1%} of what a loop round CrossEncoder.predict would compute"),
        ]
    facts.append(("time", _time(found.pace) if found.pace else "calibrate, or give --pairs-per-s"))
    return facts


def _queries(found: Estimate) -> str:
    if not found.n_rows:
        return "0"
    each = found.candidates
    if each is None:
        mean = found.n_rows / found.n_query_groups
        return f"about {found.n_query_groups:,}, with {mean:,.1f} candidates on average"
    if each.min == each.max:
        text = f"{found.n_query_groups:,}, with {_count(each.max, 'candidate')} each"
    else:
        span = f"{each.min:,} to {each.max:,} candidates (median {each.median:,g})"
        text = f"{found.n_query_groups:,}, with {span}"
    if found.n_returning_groups:
        text += (
            f"; {found.n_returning_groups:,} come again after other queries: "
            "sort the input, or give --cluster"
        )
    return text


def _sample(found: Estimate) -> str:
    if found.n_sample_rows == found.n_rows:
        text = "the whole input"
    else:
        text = f"{_count(found.n_sample_rows, 'row')} from {_count(found.n_sample_places, 'place')}"
    for reason, n_rows in found.rejected_by_reason.items():
        text += f"; {n_rows:,} to be rejected: {reason}"
    return text


def _model(found: Estimate) -> str:
    reason = f" ({found.path_reason})" if found.path_reason else ""
    return f"{found.model_id}: {found.path}{reason}, {found.precision} on {found.device}"


def _tokens(tokens: Tokens) -> str:
    error = "" if not tokens.error_share else f" ± {tokens.error_share:.1%}"
    spread = tokens.lengths
    return (
        f"{tokens.n_tokens:,}{error}; "
        f"{spread.min:,} to {spread.max:,} a pair (median {spread.median:,g})"
    )


def _time(pace: Pace) -> str:
    text = f"{_duration(3600 * pace.hours)} on {_count(pace.n_devices, 'device')}"
    if pace.n_devices > 1:
        text += f", {pace.device_hours:,.2f} device-hours"
    each = " each" if pace.n_devices > 1 else ""
    text += f" at {pace.pairs_per_s:,.0f} pairs/s{each}"
    if pace.tokens_per_s:
        text += f", {pace.tokens_per_s:,.0f} tokens/s (calibrated)"
    return text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def _histogram(bins: tuple[LengthBin, ...]) -> list[RenderableType]:
    total, most = sum(each.n_pairs for each in bins), max(each.n_pairs for each in bins)
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(width=_BAR_COLUMNS)
    table.add_column(justify="right")
    for each in bins:
        last = each.stop - 1
        span = f"{each.start:,}" if last == each.start else f"{each.start:,} to {last:,}"
        table.add_row(span, Bar(most, 0, each.n_pairs), f"{each.n_pairs / total:.1%}")
    return [Text("tokens a pair, of the sample", style="bold"), table]


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}" if n == 1 else f"{n:,} {name}s"
