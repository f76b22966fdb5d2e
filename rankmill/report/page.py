"""Render the page as HTML: the template escapes every value, fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rankmill.contract.job import JobSpec
from rankmill.contract.job_state import JobState
from rankmill.report.commands import next_commands
from rankmill.report.gather import JobFacts
from rankmill.report.plots import histogram_plot, rank_plot, throughput_plot
from rankmill.tables.first_stage import SCORE

_MAX_WORKERS = 24
_SECONDS = ((86400, "d"), (3600, "h"), (60, "min"))


def render(facts: JobFacts) -> str:
    """Return the whole page; the same facts give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=_count, percent="{:.1%}".format)
    badge = "good" if facts.state.is_success else "other"
    if facts.state is JobState.FAILED:
        badge = "bad"
    workers = sorted(facts.tally.workers.values(), key=lambda worker: -worker.n_rows)
    return environment.get_template("page.html").render(
        facts=facts,
        tally=facts.tally,
        totals=facts.tally.totals,
        spec=facts.record.spec,
        badge=badge,
        options=_options(facts.record.spec),
        key_figures=_key_figures(facts),
        workers=workers[:_MAX_WORKERS],
        n_more_workers=max(0, len(workers) - _MAX_WORKERS),
        plots=_plots(facts),
        headline=_headline(facts),
        has_order=facts.tally.changes.has_order,
        slices=facts.tally.changes.slices,
        commands=next_commands(facts),
        has_plots=find_spec("matplotlib") is not None,
    )


def _plots(facts: JobFacts) -> dict[str, Markup]:
    """Return the SVG of each plot that has data; none without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    tally = facts.tally
    throughput, lengths = tally.throughput(), tally.lengths.total()
    logits, scores = tally.logits.total(), tally.scores.total()
    by_rank = tally.changes.by_rank
    plots: dict[str, Callable[[], str]] = {}
    if throughput is not None:
        plots["throughput"] = lambda: throughput_plot(throughput, list(tally.workers.values()))
    if logits is not None:
        plots["logits"] = lambda: histogram_plot("logits", "Logits", "logit", logits, log=True)
    elif scores is not None:  # of an earlier release
        plots["scores"] = lambda: histogram_plot("scores", "Scores", "score", scores, log=True)
    if len(by_rank) > 1:
        plots["ranks"] = lambda: rank_plot("ranks", by_rank)
    if lengths is not None:
        plots["lengths"] = lambda: histogram_plot("lengths", "Lengths", "tokens a pair", lengths)
    return {name: Markup(draw()) for name, draw in plots.items()}


def _headline(facts: JobFacts) -> list[str]:
    """Return the news of a job that succeeded; nothing of another, whose state is the news."""
    if not facts.state.is_success:
        return []
    judged = facts.extras.judged
    column = facts.record.spec.fuse_col or SCORE
    return facts.tally.changes.headline(judged.comparisons if judged else (), column)


def _key_figures(facts: JobFacts) -> list[tuple[str, str, str]]:
    """Return a name, a value and a remark for each figure at the top of the page."""
    totals, tally, plan = facts.tally.totals, facts.tally, facts.plan
    n_scored, n_shards = totals["n_scored"], _count(tally.n_shards)
    not_twice = f"{_share(totals['n_duplicates'], n_scored)} not scored twice"
    figures = [
        ("scored", _count(n_scored), f"of {_count(plan.n_rows if plan else 0)} rows"),
        ("rejected", _count(totals["n_rejected"]), _share(totals["n_rejected"], totals["n_rows"])),
        ("written", _count(totals["n_written"]), f"in {n_shards} parts"),
        ("query groups", _count(totals["n_query_groups"]), ""),
        ("truncated", _count(totals["n_truncated"]), _share(totals["n_truncated"], n_scored)),
        ("duplicates", _count(totals["n_duplicates"]), not_twice),
        ("tokens", _count(totals["n_tokens"]), ""),
        ("shards", n_shards, f"of {_count(plan.n_shards if plan else 0)}"),
    ]
    if facts.record.spec.reuse_from is not None:
        why_not = facts.record.no_reuse or tally.no_reuse
        not_again = f"{_share(totals['n_reused'], n_scored)} not scored again"
        figures.append(("reused", _count(totals["n_reused"]), why_not or not_again))
    if tally.workers:
        figures.append(("device busy", f"{tally.busy_share:.1%}", "of the time in shards"))
    if facts.wall_s:
        figures.append(("time", _duration(facts.wall_s), "since submission"))
    if tally.scoring_s:
        rate = f"{totals['n_rows'] / tally.scoring_s:,.0f} pairs/s"
        figures.append(("scoring", _duration(tally.scoring_s), rate))
    if facts.cost is not None:
        hours = f"{tally.wall_s / 3600:,.3g} device hours"
        figures.append(
            ("cost", f"{facts.cost:,.2g}", f"{hours} at {facts.extras.price_per_hour:g}")
        )
    return figures


def _options(spec: JobSpec) -> list[tuple[str, str]]:
    """Return the names and values of the options that differ from their defaults."""
    options = spec.model_dump(exclude={"input_uri", "output_uri", "model_id", "version", "minor"})
    return [
        (name, str(value))
        for name, value in options.items()
        if name not in JobSpec.model_fields or value != JobSpec.model_fields[name].default
    ]


def _count(value: int) -> str:
    return f"{value:,}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _duration(seconds: float) -> str:
    for size, unit in _SECONDS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
