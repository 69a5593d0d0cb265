"""Whether samples mean what they say, as a page shows it: tables, charts and one line in words.

Intervals are over images: ranks of different pixels of one image are not independent (`msm.evaluate.bootstrap`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..evaluate.bootstrap import Estimate, mean, ratio, root_mean_square
from ..evaluate.calibration import central, intervals, spaced
from ..evaluate.records import Record, Run
from .charts import line
from .svg import chart
from .tables import Cell, Row, Table, cell, methods

Ranks = tuple[float, ...]
BARS = 40  # of a rank histogram: more samples share bars


def calibration_table(group: Sequence[Run]) -> Table | None:
    """How often intervals of nominal coverage hold the truth; None without several samples a measurement."""
    parts = group[0].evaluation.parts or ()
    rows, said = [], []
    for label, records in _ranked(group):
        number = len(records[0].ranks or ()) - 1
        chosen = central(number)
        found = [list(coverage(records, of, chosen)) for of in (_all, _measured, _unmeasured)[: 1 + len(parts)]]
        for n, r in enumerate(chosen):
            level = found[0][n][0]
            shares = [_percent(levels[n][1]) if levels else Cell("–") for levels in found]
            rows.append(
                Row(f"{exact(level)} interval", [Cell(exact(level)), *shares], f"{label}, {_from_to(r, number)}")
            )
        said.append(verdict(label, *found[0][0], len(records)))
    heads = ["Should hold", "Holds the truth", *(f"Of {part}" for part in parts)]
    note = (
        f"Counted over {group[0].evaluation.pixels}; below each share its 95 % interval over the "
        "images. From the r-th smallest to the r-th largest of K samples there is, on average and exactly, "
        "(K + 1 − 2r)/(K + 1) of the posterior: K = 39 has 50, 80, 90 and 95 %."
    )
    title = "Calibration: how often intervals of the samples hold the truth"
    return Table(title, heads, rows, note, said) if rows else None


def uncertainty_table(group: Sequence[Run]) -> Table | None:
    """The error that the samples' spread announces, and the one there is."""
    rows, ideals = [], set()
    for (method, label), records in methods(group).items():
        known = [r for r in records if r.announced_error is not None and r.actual_error is not None and r.ranks]
        if known:
            number = len(known[0].ranks or ()) - 1
            announced, actual = [r.announced_error or 0.0 for r in known], [r.actual_error or 0.0 for r in known]
            cells = [cell(root_mean_square(errors), 4) for errors in (announced, actual)]
            rows.append(Row(method, [*cells, cell(ratio(announced, actual), 2)], label))
            ideals.add(f"{(number / (number + 1)) ** 0.5:.2f} for K = {number}")
    note = (
        "Root-mean-square error of the samples' mean, over the same pixels and all images. What is announced is the "
        "standard deviation of the samples times √(1 + 1/K), for their mean errs too: then the ideal ratio is 1 for "
        f"every K. The bare standard deviation would have {', '.join(sorted(ideals))}. Below 1: the samples are too "
        "sure."
    )
    heads = ["Announced by the spread", "In fact", "Ratio, ideally 1"]
    return Table("Standard deviation against error", heads, rows, note) if rows else None


def charts(group: Sequence[Run]) -> list[tuple[str, str]]:
    """The charts of calibration, with their headings."""
    made = {
        "Calibration: how often intervals hold the truth": calibration_chart,
        "Calibration inside and outside of what was measured": parts_chart,
        "Rank of the truth among the samples": rank_chart,
        "Announced and actual error of groups of pixels": spread_chart,
    }
    return [(title, svg) for title, draw in made.items() if (svg := draw(group))]


def calibration_chart(group: Sequence[Run]) -> str | None:
    """Observed against expected coverage, with intervals over images; None without several samples a measurement."""
    lines = [line(label, list(coverage(records, _all, _spaced(records)))) for label, records in _ranked(group)]
    title = "Calibration: observed against expected coverage; on the dotted diagonal all is well"
    return chart(title, "expected coverage", "observed coverage", lines, diagonal=1.0) if lines else None


def parts_chart(group: Sequence[Run]) -> str | None:
    """The same of what was measured, and of the rest."""
    names, lines = group[0].evaluation.parts or (), []
    for label, records in _ranked(group):
        for name, of in zip(names, (_measured, _unmeasured)):
            if points := list(coverage(records, of, _spaced(records))):
                lines.append(line(f"{label}: {name}" if len(group) > 1 else name, points))
    title = "Calibration inside and outside of what was measured; on the dotted diagonal all is well"
    return chart(title, "expected coverage", "observed coverage", lines, diagonal=1.0) if lines else None


def rank_chart(group: Sequence[Run]) -> str | None:
    """How often the truth has each rank, in units of what an exact posterior gives."""
    lines = [replace(line(label, histogram(records)), steps=True) for label, records in _ranked(group)]
    title = "Rank of the truth among the samples: level at 1 if all is well, high ends if the samples are too sure"
    axes = "share of the samples below the truth", "times as often as it should"
    return chart(title, *axes, lines, levels=[("exact posterior", 1.0)]) if lines else None


def spread_chart(group: Sequence[Run]) -> str | None:
    """The error of groups of pixels against the one announced, from the surest pixels to the most doubtful ones."""
    lines = []
    for label, records in _ranked(group):
        groups = [r.errors_by_spread for r in records if r.errors_by_spread]
        points = [tuple(zip(*of_images)) for of_images in zip(*groups)]
        if points:
            lines.append(line(label, [(root_mean_square(a).value, root_mean_square(b)) for a, b in points]))
    top = 1.05 * max((y for series in lines for y in (*series.x, *(series.high or series.y))), default=0.0)
    title = "Actual against announced error, by groups of pixels; on the dotted diagonal all is well"
    return chart(title, "announced error", "actual error", lines, diagonal=top) if lines else None


def coverage(
    records: Sequence[Record], of: Callable[[Record], Ranks | None], chosen: Sequence[int]
) -> Iterator[tuple[float, Estimate]]:
    """Expected coverage of chosen intervals, by their r, and the observed one over images, if known."""
    levels = zip(*(intervals(ranks, chosen) for record in records if any(ranks := of(record) or ())))
    return ((level[0].expected, mean([c.observed for c in level])) for level in levels)


def histogram(records: Sequence[Record]) -> list[tuple[float, Estimate]]:
    """How often the truth has each rank among K samples, from 0 to 1, over how often it should; with intervals."""
    shares = [[count / total for count in ranks] for r in records if (ranks := r.ranks) and (total := sum(ranks))]
    number = len(shares[0])
    width = -(-number // BARS)
    found = []
    for start in range(0, number, width):
        stop = min(start + width, number)
        often = mean([sum(share[start:stop]) * number / (stop - start) for share in shares])
        found.append(((start + stop) / 2 / number, often))
    return found


def exact(level: float) -> str:
    """A nominal coverage as it is: whole, or with its decimals."""
    return f"{100 * level:.0f} %" if abs(100 * level - round(100 * level)) < 1e-9 else f"{100 * level:.1f} %"


def verdict(label: str, expected: float, observed: Estimate, images: int) -> str:
    """One line in words of one interval."""
    said = f"{label}: the {exact(expected)} interval held {100 * observed.value:.0f} % of the truth"
    if observed.low is None or observed.high is None:
        return f"{said}; how sure that is, one image cannot tell."
    said += f" ({100 * observed.low:.0f} to {100 * observed.high:.0f} %, {images} images)"
    if observed.high < expected:
        return f"{said}: the samples are too sure."
    return f"{said}: {'they differ too much' if observed.low > expected else 'as it should, as far as these can tell'}."


def _ranked(group: Sequence[Run]) -> Iterator[tuple[str, list[Record]]]:
    """What has ranks, by the name of its run, or its method where there is one run."""
    return ((label or method, found) for (method, label), found in methods(group).items() if found[0].ranks)


def _spaced(records: Sequence[Record]) -> list[int]:
    return spaced(len(records[0].ranks or ()) - 1)


def _all(record: Record) -> Ranks | None:
    return record.ranks


def _measured(record: Record) -> Ranks | None:
    return record.ranks_measured


def _unmeasured(record: Record) -> Ranks | None:
    return record.ranks_unmeasured


def _from_to(r: int, number: int) -> str:
    """An interval of the ordered samples."""
    return f"all {number} samples" if r == 1 else f"samples {r} to {number + 1 - r} of {number}"


def _percent(e: Estimate) -> Cell:
    between = "" if e.low is None or e.high is None else f"{100 * e.low:.0f} to {100 * e.high:.0f} %"
    return Cell(f"{100 * e.value:.0f} %", between)
