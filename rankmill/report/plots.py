"""Draw plots as SVG inside the page, readable on a phone, with text alternatives.

matplotlib is used without pyplot, so that it keeps no global state. The same facts give the same
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from rankmill.contract.results import Histogram
from rankmill.report.changes import RankScore
from rankmill.report.totals import Throughput, WorkerTally

# Loading matplotlib is slow, and without it the page has no plots.
if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, which most colour-blind people can distinguish; grey for the rest.
# The page's style has them as --plot-0 and so on, with others for dark.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_REST_COLOUR = "#8a8a8a"
_INK = "#1a1a1a"
_STYLES = {
    _INK: "var(--ink)",
    _REST_COLOUR: "var(--rest)",
    **{colour: f"var(--plot-{n})" for n, colour in enumerate(_COLOURS)},
}
_INCHES = (4.9, 2.9)
_NAME_CHARS = 28


def histogram_plot(
    name: str, title: str, unit: str, histogram: Histogram, *, log: bool = False
) -> str:
    """Return a bar plot as SVG; `name` is the prefix of its element ids.

    With `log` the heights are logarithmic, so that few rows are seen next to many.
    """
    n_values = sum(histogram.counts)
    starts = (histogram.first + np.arange(len(histogram.counts))) * histogram.width

    def draw(axes: Axes) -> None:
        axes.bar(
            starts, histogram.counts, histogram.width, align="edge", color=_COLOURS[0], log=log
        )
        axes.set_xlabel(unit)
        axes.set_ylabel("rows")

    low, middle, high = (quantile(histogram, share) for share in (0.05, 0.5, 0.95))
    words = f"{n_values:,} rows; 5% below {low:g}, half below {middle:g}, 95% below {high:g}."
    return _svg(name, title, words, draw)


def rank_plot(name: str, by_rank: list[RankScore]) -> str:
    """Return the mean logit at each rank as SVG, with one standard deviation up and down."""
    ranks, means, deviations = (
        np.array([getattr(each, field) for each in by_rank])
        for field in ("rank", "mean", "deviation")
    )

    def draw(axes: Axes) -> None:
        low, high = means - deviations, means + deviations
        axes.fill_between(ranks, low, high, color=_COLOURS[0], alpha=0.25, linewidth=0)
        axes.plot(ranks, means, color=_COLOURS[0], marker="o", markersize=3)
        axes.set_xlabel("rank")
        axes.set_ylabel("logit")

    words = f"Mean logit {means[0]:.2f} at rank 1, {means[-1]:.2f} at rank {ranks[-1]}."
    return _svg(name, "Score by rank", words, draw, counts=False)


def throughput_plot(throughput: Throughput, workers: list[WorkerTally]) -> str:
    """Return rows per second over time as SVG, stacked by worker; the smallest are drawn as one."""
    longest = float(throughput.seconds[-1])
    if longest > 3 * 3600:
        times, unit = throughput.seconds / 3600, "hours"
    elif longest > 300:
        times, unit = throughput.seconds / 60, "minutes"
    else:
        times, unit = throughput.seconds, "seconds"
    order = sorted(workers, key=lambda worker: (-worker.n_rows, worker.number))
    named, rest = order[: len(_COLOURS)], order[len(_COLOURS) :]
    rates = [throughput.rates[worker.number] for worker in named]
    labels = [worker.name[-_NAME_CHARS:] for worker in named]
    if rest:
        rates.append(throughput.rates[[worker.number for worker in rest]].sum(axis=0))
        labels.append(f"{len(rest)} more")
    colours = [*_COLOURS[: len(named)], _REST_COLOUR][: len(rates)]

    def draw(axes: Axes) -> None:
        steps = [np.append(rate, rate[-1]) for rate in rates]
        axes.stackplot(times, steps, labels=labels, colors=colours, step="post", linewidth=0)
        axes.set_xlim(times[0], times[-1])
        axes.set_xlabel(f"{unit} since the first shard began")
        axes.set_ylabel("rows/s")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.28), frameon=False, borderaxespad=0)

    total = throughput.rates.sum(axis=0)
    rates_in_words = f"{total.mean():,.0f} rows/s on average, {total.max():,.0f} at best"
    words = f"{len(workers)} workers, {rates_in_words}."
    return _svg("throughput", "Rows a second by worker", words, draw)


def quantile(histogram: Histogram, share: float) -> float:
    """Return the end of the bucket that holds the quantile `share`, from 0 to 1."""
    passed = np.cumsum(histogram.counts)
    at = int(np.searchsorted(passed, share * passed[-1]))
    return round((histogram.first + at + 1) * histogram.width, 6)


def _svg(
    name: str, title: str, words: str, draw: Callable[[Axes], None], *, counts: bool = True
) -> str:
    """Return an `svg` element as wide as its place, with `words` as its description.

    With `counts` its heights are numbers from 0, or from 1 on a logarithmic scale.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.size": 10,
            "svg.fonttype": "none",  # text stays text, for search and screen readers
            "svg.hashsalt": name,
            "text.parse_math": False,  # a $ in a worker's name is a $
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.edgecolor": _INK,
        }
    ):
        figure = Figure(figsize=_INCHES)
        axes = figure.add_subplot()
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if counts and axes.get_yscale() == "log":
            axes.set_ylim(bottom=0.7)
        elif counts:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if counts:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        drawn = StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", bbox_inches="tight", metadata=nothing, transparent=True)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' style="[^"]*"', _styled, svg)
    named = f'<svg role="img" aria-labelledby="{name}-title {name}-words"'
    spoken = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(words)}</desc>'
    )
    svg = svg.replace("<svg", named, 1)
    return re.sub(r"(<svg[^>]*>)", lambda match: match[1] + spoken, svg, count=1)


def _styled(found: re.Match[str]) -> str:
    """Return a style with the page's colours in place of matplotlib's."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _STYLES.get(colour[0], colour[0]), found[0])
