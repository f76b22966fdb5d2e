"""`rankmill models compare`: models side by side on a sample of judged queries."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from producer.cli.console import Console, print_table, stderr, warn
from producer.cli.fact_lines import count_text, facts_text, p_value_text, price_text
from producer.cli.options import DeviceFlag, JsonFlag, PriceFlag, takes_job
from producer.inspection.comparison import SAMPLE_QUERIES, ModelComparison, compare_models
from rankmill.contract.job import JobOptions


@takes_job
def compare(
    spec: JobOptions,
    models: Annotated[
        str,
        typer.Option("--models", help="Hub ids or folders, comma-separated; the first is the base"),
    ],
    qrels: Annotated[str, typer.Option("--qrels", help="Judgments: TREC, BEIR's TSV or Parquet")],
    sample: Annotated[
        int, typer.Option(min=1, help="Judged queries to sample, with all candidates")
    ] = SAMPLE_QUERIES,
    price_per_hour: PriceFlag = None,
    device: DeviceFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare models on judged queries.

    Scores the same sample with each, on this machine. Prints nDCG@10 with its significance against
    the first model, speed, truncation and cost. Leaves no output.
    """
    with stderr.status("scoring the sample with each model"):
        found = compare_models(
            spec,
            [model.strip() for model in models.split(",") if model.strip()],
            qrels,
            n_queries=sample,
            price_per_hour=price_per_hour,
            say=warn,
        )
    if as_json:
        print(found.model_dump_json())
    else:
        print_table(_table(found))
        Console().print(_facts(found))


def _table(found: ModelComparison) -> Table:
    """Return a line for each model; the comparison is with the first."""
    table = Table("model", box=None, pad_edge=False)
    names = ["nDCG@10", "change", "p", "better", "worse", "pairs/s", "truncated"]
    for name in [*names, *(["per million"] if found.price_per_hour is not None else [])]:
        table.add_column(name, justify="right")
    for each in found.models:
        cells = [f"{each.ndcg:.4f}", "", "", "", ""]
        if (change := each.change) is not None:
            counts = f"{change.n_better:,}", f"{change.n_worse:,}"
            cells[1:] = (
                f"{change.after - change.before:+.4f}",
                p_value_text(change.p_value),
                *counts,
            )
        cells += [f"{each.pairs_per_s:,.0f}", f"{each.truncated_share:.1%}"]
        if each.price_of_million is not None:
            cells.append(price_text(each.price_of_million))
        table.add_row(each.model_id, *cells)
    return table


def _facts(found: ModelComparison) -> Text:
    of = f" of {found.n_found:,} judged ones in the input"
    how = dict.fromkeys(f"{each.path}, {each.precision}" for each in found.models)
    facts = [
        ("queries", f"{found.n_queries:,}{of}, with {count_text(found.n_pairs, 'pair')}"),
        ("input", f"nDCG@10 {found.ndcg_before:.4f} in its own order"),
        ("scored", "; ".join(how)),
        ("p", "against the first model, of a paired permutation test of the queries"),
        ("pairs/s", "of one device, without start-up and loading"),
    ]
    rejected = [f"{each.n_rejected:,} by {each.model_id}" for each in found.models]
    if any(each.n_rejected for each in found.models):
        facts.append(("rejected", ", ".join(rejected)))
    if found.price_per_hour is not None:
        facts.append(("price", f"{found.price_per_hour:,g} per hour and device"))
    return facts_text(facts)
