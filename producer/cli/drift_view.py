"""The figures of `rankmill diff`: the most changed queries, facts and gates."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from producer.cli.console import Console
from producer.cli.fact_lines import count_text, facts_text, p_value_text
from rankmill.contract.drift import (
    ChangedQuery,
    Drift,
    Place,
    ScoreShift,
)

_N_QUERIES = 3  # `--json` has them all
_LABEL_COLUMNS = 24


def show_drift(drift: Drift, console: Console) -> None:
    """Print a drift."""
    for query in drift.most_changed[:_N_QUERIES]:
        console.print(_changed_table(query))
    console.print(facts_text(_facts(drift)), soft_wrap=True)
    if drift.gate:
        table = Table("gate", box=None, pad_edge=False)
        table.add_column("measured", justify="right")
        table.add_column()
        for each in drift.gate.checks:
            measured = "nothing" if each.value is None else f"{each.value:.4f}"
            verdict = Text("failed", style="red") if each.failed else Text("passed")
            table.add_row(Text(each.expression), measured, verdict)
        console.print(table)


def _facts(drift: Drift) -> list[tuple[str, str]]:
    sides, models = [], []
    for side in (drift.old, drift.new):
        kept = f", the best {side.top_k:,} of each query" if side.top_k else ""
        sides.append(f"{side.output_uri}: {count_text(side.n_pairs, 'pair')}{kept}")
        models.append(f"{side.model_id} {side.model_revision or ''}".rstrip())
    facts = [("old", sides[0]), ("new", sides[1])]
    if models[0] != models[1]:
        facts.append(("model", f"{models[0]} before, {models[1]} after"))
    for name, presence in (("queries", drift.queries), ("pairs", drift.pairs)):
        new = f"{presence.n_new:,} new ({presence.new_share:.1%})"
        vanished = f"{presence.n_vanished:,} vanished ({presence.vanished_share:.1%})"
        facts.append((name, f"{presence.n_common:,} in both; {new}, {vanished}"))
    if drift.scores:
        facts += _score_facts(drift.scores)
    n_queries = count_text(drift.queries.n_common, "query", "queries")
    for churn in drift.churn:
        changed = f"{churn.n_changed:,} of {n_queries} changed"
        value = f"overlap {churn.overlap:.4f}, churn {churn.churn:.4f}; {changed}"
        facts.append((f"top {churn.k}", value))
    if drift.rbo:
        rbo = drift.rbo
        worst = f"p5 {rbo.quantiles['p5']:.4f}, min {rbo.quantiles['min']:.4f}"
        unchanged = f"{count_text(rbo.n_equal, 'query', 'queries')} unchanged (p = {rbo.p})"
        facts.append(("rbo", f"mean {rbo.mean:.4f}, {worst}; {unchanged}"))
    for each in drift.ndcg:
        change = f"{each.after - each.before:+.4f}, p {p_value_text(each.p_value)}"
        facts.append((each.measure, f"{each.before:.4f} before, {each.after:.4f} after ({change})"))
    measured = {each.measure for each in drift.ndcg}
    left_out = [name for each in drift.churn if (name := f"nDCG@{each.k}") not in measured]
    if drift.ndcg and left_out:
        n_kept = min(side.top_k for side in (drift.old, drift.new) if side.top_k)
        names = ", ".join(left_out)
        facts.append(("left out", f"{names}: one side has no more than {n_kept:,} rows of a query"))
    return facts


def _score_facts(scores: ScoreShift) -> list[tuple[str, str]]:
    means = f"mean {scores.mean_before:.4f} before, {scores.mean_after:.4f} after"
    shift = ", ".join(
        f"{name} {scores.shift_quantiles[name]:+.4f}" for name in ("p5", "p50", "p95")
    )
    return [
        ("scores", f"{means}; KS {scores.ks:.4f}"),
        ("shift", f"mean {scores.mean_shift:+.4f}, {shift}; absolute {scores.mean_abs_shift:.4f}"),
    ]


def _changed_table(query: ChangedQuery) -> Table:
    """Return the first places of a query before and after, each with its place in the other."""
    named = query.query if query.query is not None else str(query.query_id)
    title = Text(f"{_line(named)} (rbo {query.rbo:.4f})", style="bold")
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("#", justify="right", min_width=1)
    table.add_column("before", overflow="ellipsis", no_wrap=True, max_width=_LABEL_COLUMNS)
    table.add_column("now", justify="right", min_width=3)
    table.add_column("after", overflow="ellipsis", no_wrap=True, max_width=_LABEL_COLUMNS)
    table.add_column("was", justify="right", min_width=3)
    table.add_column("score", justify="right", min_width=6)
    for number in range(max(len(query.before), len(query.after))):
        row = [Text(str(number + 1)), *[Text("")] * 5]
        if number < len(query.before):
            before = query.before[number]
            row[1:3] = [_label(before), Text(_other(before, "gone"))]
        if number < len(query.after):
            after = query.after[number]
            row[3:] = [_label(after), Text(_other(after, "new")), Text(f"{after.score:.4f}")]
        table.add_row(*row)
    return table


def _other(place: Place, none: str) -> str:
    return none if place.other_place is None else str(place.other_place)


def _label(place: Place) -> Text:
    return Text(_line(place.document if place.document is not None else str(place.doc_id)))


def _line(text: str) -> str:
    return " ".join(text.split())
