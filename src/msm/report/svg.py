"""Line charts as inline SVG: text stays text, and takes the colour of the page around it, in dark mode too."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour while matplotlib draws
COLOURS = ("#3b82f6", "#e07b00", "#22a06b", "#b15cf0", "#e5484d", "#8a8f98")  # legible on white and on black
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "msm",
    "text.parse_math": False,  # names come from files
    "font.family": "sans-serif",
    "font.size": 10.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


SIZES = {"narrow": (4.7, 3.5), "wide": (9.4, 3.6)}  # inches: for half a page, for all of it
LETTER = 0.078  # inches that a letter of a legend takes


@dataclass(frozen=True)
class Series:
    """A line of a chart, or the outline of bars, by its name in the legend; low and high end its error bars."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = True
    steps: bool = False


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    levels: Sequence[tuple[str, float]] = (),
    diagonal: float = 0.0,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Draw lines.

    Args:
        title: what a screen reader says.
        x_label: horizontal axis.
        y_label: vertical axis.
        series: the lines.
        levels: horizontal lines, dashed, with their names.
        diagonal: if not 0, both axes run from 0 to it, with the line y = x.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.

    Returns:
        two <svg> elements, of classes "narrow" and "wide": the page shows the one whose text is legible.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = []
    for name, (width, height) in SIZES.items():
        with rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            axes = figure.subplots()
            if diagonal:
                axes.plot([0, diagonal], [0, diagonal], color=INK, linestyle=":", linewidth=1)
                axes.set(xlim=(0, diagonal), ylim=(0, diagonal))
            _lines(axes, series, levels)
            if log_x:
                _log_ticks(axes, sorted({x for line in series for x in line.x}))
            axes.set(xlabel=x_label, ylabel=y_label)
            if log_y:
                _log_scale(axes)
            if len(series) + len(levels) > 1 or diagonal:
                labels = [*(line.label for line in series), *(label for label, _ in levels)]
                fit = int(width / LETTER) // (max(map(len, labels)) + 6)
                figure.legend(loc="outside lower center", ncols=max(1, min(fit, 4)))
            found.append(_inline(figure, title, name))
    return "".join(found)


def _lines(axes: Axes, series: Sequence[Series], levels: Sequence[tuple[str, float]]) -> None:
    """Lines with their error bars, and levels, a colour each."""
    colours = cycle(COLOURS)
    for line in series:
        colour = next(colours)
        if line.steps:
            between = [(a + b) / 2 for a, b in pairwise(line.x)]
            edges = [2 * line.x[0] - between[0], *between, 2 * line.x[-1] - between[-1]]
            axes.stairs(line.y, edges, color=colour, label=line.label, linewidth=1.8)
        else:
            axes.plot(line.x, line.y, "o-" if line.markers else "-", color=colour, label=line.label)
        if line.low is not None and line.high is not None:
            axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.2)
    for name, value in levels:
        axes.axhline(value, color=next(colours), linestyle="--", linewidth=1.4, label=name)


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic horizontal axis with the values themselves as ticks."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{x:g}" for x in values])
    axes.minorticks_off()


def _log_scale(axes: Axes) -> None:
    """Logarithmic vertical axis with plain numbers; within a decade, those between its powers too."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:.3g}" if high < 10 * low else "")


def _inline(figure: Figure, title: str, name: str) -> str:
    """A figure as an element of a page: scalable, named, in the page's ink, its ids apart from others'."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue().replace(INK, "currentColor")
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    mark = f"c{crc32((title + body).encode()):x}-"
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{mark}", body)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg class="{name}" {names} {box[0]} role="img" aria-label="{escape(title)}">{body}'
