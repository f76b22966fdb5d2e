"""The figures of `rankmill eval`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import facts_text, p_value_text
from producer.quality.evaluate import Evaluation
from producer.quality.tuning import Tuning
from rankmill.contract.drift import Comparison
from rankmill.shown import escaped


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return a line for each measure: means, change, p-value and the queries that changed."""
    table = Table("measure", box=None, pad_edge=False)
    if evaluation.fused:
        return _with_fused(table, evaluation)
    for name in ("before", "after", "change", "p", "better", "worse", "equal"):
        table.add_column(name, justify="right")
    for each in evaluation.comparisons:
        means = f"{each.before:.4f}", f"{each.after:.4f}", _change(each)
        changed = (f"{n:,}" for n in (each.n_better, each.n_worse, each.n_equal))
        table.add_row(each.measure, *means, p_value_text(each.p_value), *changed)
    return table


def _with_fused(table: Table, evaluation: Evaluation) -> Table:
    """Return the table with the fused order next to both; its change is against the one after."""
    for name in ("before", "after", "fused", "change", "p", "by fusion", "p"):
        table.add_column(name, justify="right")
    for each, fused in zip(evaluation.comparisons, evaluation.fused, strict=True):
        means = f"{each.before:.4f}", f"{each.after:.4f}", f"{fused.after:.4f}"
        changes = (
            text for one in (each, fused) for text in (_change(one), p_value_text(one.p_value))
        )
        table.add_row(each.measure, *means, *changes)
    return table


def _change(comparison: Comparison) -> str:
    return f"{comparison.after - comparison.before:+.4f}"


def tuning_table(tuning: Tuning) -> Table:
    """Return a line for each ranking: its nDCG@10 on held-out queries, and what was chosen."""
    table = Table("ranking", box=None, pad_edge=False)
    for name in ("nDCG@10", "change", "p", "chosen without each fold"):
        table.add_column(name, justify="right")
    table.add_row("first stage", f"{tuning.first:.4f}")
    table.add_row("model", f"{tuning.model:.4f}")
    for each in tuning.methods:
        chosen = ", ".join(f"{value:g}" for value in each.of_folds)
        what = "weight" if each.method == "weighted" else "k"
        change = f"{each.change:+.4f}", p_value_text(each.p_value)
        table.add_row(each.method, f"{each.ndcg:.4f}", *change, f"{what} {chosen}")
    return table


def tuning_facts(tuning: Tuning) -> Text:
    """Return the advice, and how it was found."""
    best = tuning.best
    advice = (
        f"{best.flags}: {best.change:+.4f} on held-out queries"
        if best is not None
        else "none: no fusion ranks held-out queries better than the model alone, beyond chance"
    )
    folds = f"{tuning.n_folds} folds of {tuning.n_queries:,} queries, seed {tuning.seed}"
    return facts_text(
        [
            ("fusion", advice),
            ("held out", f"{folds}; each query is measured by what the other folds chose"),
            ("p", "two-sided, of a paired permutation test against the model's ranks"),
        ]
    )


def evaluation_facts(evaluation: Evaluation) -> Text:
    """Return the facts behind the means: queries, documents and the two orders."""
    n_left_out = evaluation.n_judged - evaluation.n_queries
    left_out = f", {n_left_out:,} without are left out" if n_left_out else ""
    before_by = evaluation.before_by
    by = "order" if before_by == "rows" else f"column {escaped(before_by)}"
    order = " by fused_rank" if evaluation.fused else ""
    kept = f", the best {evaluation.top_k:,} of each query{order}" if evaluation.top_k else ""
    matched = f"{evaluation.n_in_input:,} before, {evaluation.n_in_parts:,} after"
    too_deep = ", ".join(evaluation.too_deep)
    rows = f"the result has no more than {evaluation.top_k or 0:,} rows of a query to compare"
    return facts_text(
        [
            ("queries", f"{evaluation.n_queries:,} with a relevant document{left_out}"),
            ("found", f"{matched}; a query not found counts as 0"),
            ("before", f"all candidates by the input's {by}"),
            ("after", f"by rank{kept}"),
            *([("left out", f"{too_deep}: {rows}")] if too_deep else []),
            *([("fused", "by fused_rank; its change is from after")] if evaluation.fused else []),
            ("p", "two-sided, of a paired permutation test of the queries' differences"),
        ]
    )
