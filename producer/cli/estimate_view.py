"""The figures of `rankmill estimate` in 80 columns: facts, then the lengths of the pairs."""

from __future__ import annotations

from textwrap import fill

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import count_text, facts_text, price_text
from producer.estimates.estimate import Estimate
from producer.estimates.forecast import Cost, LengthBin, Pace, Tokens
from rankmill.contract.estimate import FasterPrecision

_BAR_COLUMNS = 48
_VALUE_COLUMNS = 66


def estimate_view(estimate: Estimate) -> RenderableType:
    """Return the facts of an estimate, and a histogram of the lengths if there are tokens."""
    facts = facts_text([(name, fill(value, _VALUE_COLUMNS)) for name, value in _facts(estimate)])
    if estimate.tokens is None:
        return facts
    return Group(facts, "", *_histogram(estimate.tokens.histogram))


def _facts(estimate: Estimate) -> list[tuple[str, str]]:
    size = f"{count_text(estimate.n_rows, 'row')} in {count_text(estimate.n_files, 'file')}"
    sample = "the whole input"
    if estimate.n_sample_rows != estimate.n_rows:
        places = count_text(estimate.n_sample_places, "place")
        sample = f"{count_text(estimate.n_sample_rows, 'row')} from {places}"
    for reason, n_rows in estimate.rejected_by_reason.items():
        sample += f"; {n_rows:,} to be rejected: {reason}"
    facts = [
        ("input", f"{size}, {decimal(estimate.n_bytes)}"),
        ("queries", _queries(estimate)),
        ("shards", f"{estimate.n_shards:,}"),
        ("sample", sample),
        ("duplicates", f"{estimate.duplicate_share:.1%} of the sample"),
    ]
    facts += [("columns", note) for note in estimate.notes]
    if estimate.title_col:
        facts.append(("titles", f"column '{estimate.title_col}' before each text"))
    reason = f" ({estimate.path_reason})" if estimate.path_reason else ""
    how = f"{estimate.path}{reason}, {estimate.precision} on {estimate.device}"
    facts.append(("model", f"{estimate.model_id}: {how}"))
    facts += _token_facts(estimate.tokens)
    pace = estimate.pace
    facts.append(("time", _time(pace) if pace else "calibrate, or give --pairs-per-s"))
    if estimate.cost:
        facts.append(("cost", _cost(estimate.cost)))
    if estimate.faster:
        facts.append(("faster", _faster(estimate.faster)))
    return facts


def _token_facts(tokens: Tokens | None) -> list[tuple[str, str]]:
    if tokens is None:
        return [("tokens", "none: nothing is tokenized")]
    error = "" if not tokens.error_share else f" ± {tokens.error_share:.1%}"
    spread = tokens.lengths
    lengths = f"{spread.min:,} to {spread.max:,} a pair (median {spread.median:,g})"
    cut, padding = tokens.truncated_share, tokens.padding_share
    facts = [
        ("tokens", f"{tokens.n_tokens:,}{error}; {lengths}"),
        ("truncated", f"{cut:.1%} of the sample, at {tokens.max_length:,} tokens"),
    ]
    if tokens.n_passages is not None:
        facts.append(("passages", f"{tokens.n_passages:,} in all documents"))
    if padding is not None:
        loop = "of what a loop round CrossEncoder.predict would compute"
        facts.append(("padding", f"{padding:.1%} {loop}"))
    return facts


def _queries(estimate: Estimate) -> str:
    if not estimate.n_rows:
        return "0"
    spread = estimate.candidates
    if spread is None:
        mean = estimate.n_rows / estimate.n_query_groups
        return f"about {estimate.n_query_groups:,}, with {mean:,.1f} candidates on average"
    if spread.min == spread.max:
        text = f"{estimate.n_query_groups:,}, with {count_text(spread.max, 'candidate')} each"
    else:
        span = f"{spread.min:,} to {spread.max:,} candidates (median {spread.median:,g})"
        text = f"{estimate.n_query_groups:,}, with {span}"
    if estimate.n_returning_groups:
        text += (
            f"; {estimate.n_returning_groups:,} come again after other queries: "
            "sort the input, or give --cluster"
        )
    return text


def _time(pace: Pace) -> str:
    text = f"{_duration(3600 * pace.hours)} on {count_text(pace.n_devices, 'device')}"
    if pace.n_devices > 1:
        text += f", {pace.device_hours:,.2f} device-hours"
    each = " each" if pace.n_devices > 1 else ""
    text += f" at {pace.pairs_per_s:,.0f} pairs/s{each}"
    if pace.tokens_per_s:
        text += f", {pace.tokens_per_s:,.0f} tokens/s (calibrated)"
    return text


def _cost(cost: Cost) -> str:
    return (
        f"{price_text(cost.total)}; {price_text(cost.per_million_pairs)} per million pairs, at "
        f"{cost.price_per_hour:,g} per hour and device"
    )


def _faster(faster: FasterPrecision) -> str:
    found = faster.agreement
    return (
        f"--precision {found.precision}: {faster.times:.1f} times the speed; against fp32 on "
        f"{found.n_pairs} pairs: tau {found.kendall_tau:.3f}, top-10 overlap "
        f"{found.top10_overlap:.3f}, largest logit difference {found.max_difference:.2g}"
    )


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
