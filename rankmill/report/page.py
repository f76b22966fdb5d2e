"""The page as HTML: every value escaped by the template, nothing fetched, nothing run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rankmill.contract.job import JobSpec
from rankmill.contract.job_state import JobState
from rankmill.report.gather import JobFacts
from rankmill.report.plots import histogram_plot, throughput_plot

_MAX_WORKERS = 24
_SECONDS = ((86400, "d"), (3600, "h"), (60, "min"))


def render(facts: JobFacts) -> str:
    """The whole page; the same facts give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=_count, share=_share, duration=_duration)
    workers = sorted(facts.tally.workers.values(), key=lambda worker: -worker.n_rows)
    return environment.get_template("page.html").render(
        facts=facts,
        tally=facts.tally,
        totals=facts.tally.totals,
        spec=facts.record.spec,
        badge=_badge(facts.state),
        options=_options(facts.record.spec),
        key_figures=_key_figures(facts),
        workers=workers[:_MAX_WORKERS],
        n_more_workers=max(0, len(workers) - _MAX_WORKERS),
        plots=_plots(facts),
        has_plots=find_spec("matplotlib") is not None,
    )


def _plots(facts: JobFacts) -> dict[str, Markup]:
    """The SVG of each plot that there is something for; none without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    tally = facts.tally
    throughput, scores, lengths = tally.throughput(), tally.scores.total(), tally.lengths.total()
    found: dict[str, Callable[[], str]] = {}
    if throughput is not None:
        found["throughput"] = lambda: throughput_plot(throughput, list(tally.workers.values()))
    if scores is not None:
        found["scores"] = lambda: histogram_plot("scores", "Scores", "score", scores)
    if lengths is not None:
        found["lengths"] = lambda: histogram_plot("lengths", "Lengths", "tokens a pair", lengths)
    return {name: Markup(draw()) for name, draw in found.items()}


def _key_figures(facts: JobFacts) -> list[tuple[str, str, str]]:
    """Name, value and a word about it, of what one wants to see first."""
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
        rate = f"{totals['n_rows'] / facts.wall_s:,.0f} rows/s"
        figures.append(("time", _duration(facts.wall_s), rate))
    return figures


def _options(spec: JobSpec) -> list[tuple[str, str]]:
    """The options that are not as they are by default."""
    given = spec.model_dump(exclude={"input_uri", "output_uri", "model_id", "version"})
    return [
        (name, str(value))
        for name, value in given.items()
        if value != JobSpec.model_fields[name].default
    ]


def _badge(state: JobState) -> str:
    if state.is_success:
        return "good"
    return "bad" if state is JobState.FAILED else "other"


def _count(value: int) -> str:
    return f"{value:,}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _duration(seconds: float) -> str:
    for size, unit in _SECONDS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
