"""Line charts as inline SVG: text stays text, and takes the colour of the page around it, in dark mode too."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
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


@dataclass(frozen=True)
class Series:
    """A line of a chart, by its name in the legend; low and high are the ends of its error bars."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = True


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    levels: Sequence[tuple[str, float]] = (),
    diagonal: bool = False,
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
        diagonal: whether both axes run from 0 to 1, with the line y = x.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.

    Returns:
        an <svg> element.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.7, 3.5), layout="constrained")
        axes = figure.subplots()
        colours = cycle(COLOURS)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
            axes.set(xlim=(0, 1), ylim=(0, 1))
        for line in series:
            colour = next(colours)
            axes.plot(line.x, line.y, "o-" if line.markers else "-", color=colour, label=line.label)
            if line.low is not None and line.high is not None:
                axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.2)
        for name, value in levels:
            axes.axhline(value, color=next(colours), linestyle="--", linewidth=1.4, label=name)
        if log_x:
            _log_ticks(axes, sorted({x for line in series for x in line.x}))
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log" if log_y else "linear")
        if len(series) + len(levels) > 1 or diagonal:
            figure.legend(loc="outside lower center", ncols=2)
        return _inline(figure, title)


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic horizontal axis with the values themselves as ticks."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{x:g}" for x in values])
    axes.minorticks_off()


def _inline(figure: Figure, title: str) -> str:
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
    return f'<svg {names} {box[0]} role="img" aria-label="{escape(title)}">{body}'
