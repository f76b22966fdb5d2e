"""The figures of `rankmill eval`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from producer.cli.fact_lines import facts_text, p_value_text
from producer.quality.evaluate import Evaluation


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return a line for each measure: means, change, p-value and the queries that changed."""
    table = Table("measure", box=None, pad_edge=False)
    for name in ("before", "after", "change", "p", "better", "worse", "equal"):
        table.add_column(name, justify="right")
    for each in evaluation.comparisons:
        means = f"{each.before:.4f}", f"{each.after:.4f}", f"{each.after - each.before:+.4f}"
        changed = (f"{n:,}" for n in (each.n_better, each.n_worse, each.n_equal))
        table.add_row(each.measure, *means, p_value_text(each.p_value), *changed)
    return table


def evaluation_facts(evaluation: Evaluation) -> Text:
    """Return the facts behind the means: queries, documents and the two orders."""
    n_left_out = evaluation.n_judged - evaluation.n_queries
    left_out = f", {n_left_out:,} without are left out" if n_left_out else ""
    by = "column score" if evaluation.before_by == "score" else "order"
    kept = f", the best {evaluation.top_k:,} of each query" if evaluation.top_k else ""
    matched = f"{evaluation.n_in_input:,} before, {evaluation.n_in_parts:,} after"
    return facts_text(
        [
            ("queries", f"{evaluation.n_queries:,} with a relevant document{left_out}"),
            ("found", f"{matched}; a query not found counts as 0"),
            ("before", f"all candidates by the input's {by}"),
            ("after", f"by rank{kept}"),
            ("p", "two-sided, of a paired permutation test of the queries' differences"),
        ]
    )
