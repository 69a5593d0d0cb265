"""What a page shows of a run without truth: the verdict, predictions of held-out entries, the samples' certainty."""

from collections.abc import Sequence

from ..evaluate.bootstrap import Estimate, mean
from ..evaluate.calibration import intervals, spaced
from ..evaluate.held_out import Prediction, in_words, overall
from ..evaluate.records import Record, Run
from .svg import Series, chart
from .tables import Cell, Row, Table, cell, methods


def held_out_summary(run: Run) -> list[tuple[str, str]]:
    """The verdict, and what was held out of what, in a few lines."""
    verdicts = run.evaluation.verdicts
    facts = [("Verdict", overall(verdicts)), ("Why", ". ".join(in_words(verdicts)[1:]))]
    entries = f"{min(v.entries for v in verdicts)} to {max(v.entries for v in verdicts)}"
    entries = f"{verdicts[0].entries}" if len({v.entries for v in verdicts}) == 1 else entries
    facts.append(("Held out", f"{entries} measured points an image, of {verdicts[0].unit}, from every method"))
    facts.append(("Images", f"{len(verdicts)}, of {run.config.setting.dataset_dir}"))
    return facts


def prediction_table(group: Sequence[Run]) -> Table:
    """How every method predicted the held-out entries."""
    rows, found = [], methods(group)
    errors = {key: _over([p.error for p in _predictions(records)]) for key, records in found.items()}
    best = min(round(e.value, 4) for e in errors.values())
    for (method, label), records in found.items():
        predictions, e = _predictions(records), errors[method, label]
        cells = [cell(e, 4, round(e.value, 4) == best), cell(_over([p.against_tv for p in predictions]), 2)]
        residuals = [r.residual for r in records if r.residual is not None]
        cells.append(cell(_over([Estimate(value) for value in residuals]), 2) if residuals else Cell("–"))
        cells.append(Cell(f"{records[0].network_calls or '–'}"))
        settings = {r.setting for r in records if r.setting}
        rows.append(Row(method, cells, label or (settings.pop() if len(settings) == 1 else "")))
    floor = [v.floor for v in group[0].evaluation.verdicts]
    note = (
        "Error: squared error on the held-out values over their energy, of which their own noise alone makes "
        f"{sum(floor) / len(floor):.4f}. Settings of the classical methods are those that predict another tenth best. "
        "Intervals: 95 %, over the held-out points of one image, or over images. Residual: y − H T x over what was "
        "given, in units of the noise; 1 for a sample of the posterior."
    )
    heads = ["Error ↓", "Against TV ↓", "Residual / noise", "Network calls"]
    return Table("Prediction of held-out measurements", heads, rows, note)


def certainty_table(group: Sequence[Run]) -> Table:
    """Whether the samples are as sure of the held-out values as they may be."""
    rows = []
    for (method, label), records in _ranked(group).items():
        predictions = _predictions(records)
        dispersion = _over([p.dispersion for p in predictions if p.dispersion])
        rows.append(Row("Dispersion", [Cell("1"), cell(dispersion, 2)], label or method))
        independent = [p.independent for p in predictions if p.independent is not None]
        if independent:
            rows.append(Row("Independent values, in effect", [Cell("–"), Cell(f"{sum(independent):.0f}")]))
        for expected, observed in _coverage(records):
            rows.append(Row(f"{100 * expected:.0f} % interval", [Cell(f"{100 * expected:.0f} %"), observed], ""))
    note = (
        "Dispersion: squared error of the mean over what the samples' spread and the noise announce; above 1 the "
        "samples are too sure; of so many independent values, as those of coils and neighbours are not, it were as "
        "uncertain. Intervals of the samples, with the noise of the measurement added, hold so many of the "
        f"held-out values. Counted over {group[0].evaluation.pixels}."
    )
    return Table("How sure the samples are", ["Expected", "Found"], rows, note)


def image_table(run: Run) -> Table:
    """What is said of each image."""
    rows = []
    means = {r.image: r for r in run.records if r.kind == "mean"}
    for v in run.evaluation.verdicts:
        p = means[v.image].prediction
        assert p is not None and p.dispersion is not None
        maps = Cell("–" if v.maps_residual is None else f"{100 * v.maps_residual:.1f} %")
        cells = [Cell(v.words), cell(p.error, 4), cell(p.against_tv, 2), cell(p.dispersion, 2), maps]
        rows.append(Row(v.image, [*cells, Cell(f"{v.noise_std:.4f}")]))
    note = (
        "Maps' residual: share of the calibration region's energy that no image explains under these coil maps. Noise: "
        "σ per real component, estimated or given."
    )
    heads = ["Verdict", "Error", "Against TV", "Dispersion", "Maps' residual", "Noise"]
    return Table("Image by image", heads, rows, note)


def certainty_chart(group: Sequence[Run]) -> str:
    """Observed against expected coverage of the held-out values."""
    lines = []
    for (method, label), records in _ranked(group).items():
        ranks = _ranks(records)
        points = [(c.expected, c.observed) for c in intervals(ranks, spaced(len(ranks) - 1))]
        lines.append(Series(label or method, [x for x, _ in points], [y for _, y in points]))
    title = "Calibration on held-out values: observed against expected coverage; on the dotted diagonal all is well"
    return chart(title, "expected coverage", "observed coverage", lines, diagonal=1.0)


def _ranked(group: Sequence[Run]) -> dict[tuple[str, str], list[Record]]:
    return {key: records for key, records in methods(group).items() if records[0].ranks}


def _ranks(records: Sequence[Record]) -> list[float]:
    """Ranks over all images."""
    return [sum(counts) for counts in zip(*(r.ranks for r in records if r.ranks))]


def _coverage(records: Sequence[Record]) -> list[tuple[float, Cell]]:
    """Expected coverage of each interval, and what was found over all images."""
    told = {p.nominal: p.covered for p in _predictions(records) if p.covered} if len(records) == 1 else {}
    found, ranks = [], _ranks(records)
    for level in intervals(ranks, spaced(len(ranks) - 1)):
        e = told.get(level.expected)
        between = "" if e is None or e.low is None or e.high is None else f"{100 * e.low:.0f} to {100 * e.high:.0f} %"
        found.append((level.expected, Cell(f"{100 * level.observed:.0f} %", between)))
    return found


def _predictions(records: Sequence[Record]) -> list[Prediction]:
    return [r.prediction for r in records if r.prediction is not None]


def _over(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over images, with an interval over them; of one image its own."""
    return estimates[0] if len(estimates) == 1 else mean([e.value for e in estimates])
