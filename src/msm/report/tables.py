"""Records → tables of a page: means over images with their intervals, the best in bold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..evaluate.bootstrap import Estimate, difference, mean
from ..evaluate.metrics import Convention
from ..evaluate.records import LEARNED, METRICS, Best, Record, Run, decimals
from .paper_numbers import paper_fid, paper_rows
from .remarks import residual_remarks

COLUMNS: dict[str, tuple[str, int, Best]] = {**METRICS, "lpips": ("LPIPS ↓", 3, min)}
SETS = {"generated": "generated", "held-out": "real, held out"}  # images, by the kind of their records


@dataclass(frozen=True)
class Cell:
    """A number, its interval below it, and whether it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table; `paper` marks the paper's own numbers, of other images."""

    name: str
    cells: list[Cell]
    note: str = ""
    paper: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a heading, a few sentences below, and what strikes in its numbers."""

    title: str
    columns: list[str]
    rows: list[Row]
    note: str = ""
    remarks: Sequence[str] = ()


def methods(group: Sequence[Run]) -> dict[tuple[str, str], list[Record]]:
    """Records by (method, run): classical methods once, those of the model for each run; in order, images alike."""
    found: dict[tuple[str, str], list[Record]] = {}
    for n, run in enumerate(group):
        for record in run.records:
            learned = record.kind in LEARNED
            if learned or n == 0:
                label = run.label if learned and len(group) > 1 else ""
                found.setdefault((record.method, label), []).append(record)
    return {key: sorted(records, key=lambda r: r.image) for key, records in found.items()}


def score_table(group: Sequence[Run], convention: Convention) -> Table:
    """Metrics of every method under one convention, with the paper's numbers where the setting is the same."""
    found = methods(group)
    everything = [record for records in found.values() for record in records]
    columns = dict(COLUMNS)
    if any(record.lpips is None for record in everything):
        del columns["lpips"]
    table = {
        key: {name: mean(_values(records, convention, name)) for name in columns} for key, records in found.items()
    }
    classical = [key for key, records in found.items() if records[0].kind not in LEARNED]
    rival = max(classical, key=lambda key: table[key]["psnr"].value, default=None)
    further: list[tuple[str, Callable[[list[Record]], Cell]]] = []
    if convention == "plain" and rival:
        further.append((f"PSNR against {rival[0]}", partial(_gain, others=found[rival])))
    if convention == "plain" and all(record.residual is not None for record in everything):
        further.append(("Residual / noise", lambda records: cell(mean([r.residual or 0.0 for r in records]), 2)))
    further.append(("Network calls", lambda records: Cell(f"{records[0].network_calls or '–'}")))
    rows = []
    for (method, label), records in found.items():
        cells = []
        for name, (_, least, better) in columns.items():
            digits = decimals([other[name].value for other in table.values()], least)
            best = better(round(other[name].value, digits) for other in table.values())
            e = table[method, label][name]
            cells.append(cell(e, digits, round(e.value, digits) == best))
        rows.append(Row(method, [*cells, *(make(records) for _, make in further)], label))
    paper = [] if convention == "plain" else paper_rows(group[0].config)
    for line in paper:
        numbers = {"psnr": f"{line.psnr:.2f}", "lpips": f"{line.lpips:.3f}"}
        rows.append(Row(line.method, [*(Cell(numbers.get(name, "–")) for name in columns), Cell("–")], "paper", True))
    heads = [*(head for head, _, _ in columns.values()), *(head for head, _ in further)]
    remarks = residual_remarks(found) if convention == "plain" else []
    return Table(f"Quality, convention {convention}", heads, rows, _score_note(convention, bool(paper)), remarks)


def _score_note(convention: Convention, paper: bool) -> str:
    if convention == "plain":
        return (
            "Mean over the images, below it its 95 % interval. Plain: reconstruction and truth keep their common "
            "scale. The difference is between the same images. Residual: y − H T x over what was measured, in units "
            "of the noise; 1 for a sample of the posterior."
        )
    other = (
        "The paper's numbers are of its own test images."
        if paper
        else "The paper has no numbers for this setting: its photos have 128 px, its brain slices 256 px."
    )
    return f"Published: reconstruction and truth are each scaled to [0, 1], as in the paper's tables. {other}"


def cell(e: Estimate, digits: int, best: bool = False, sign: str = "") -> Cell:
    """A number with its interval."""
    between = "" if e.low is None or e.high is None else f"{e.low:{sign}.{digits}f} to {e.high:{sign}.{digits}f}"
    return Cell(f"{e.value:{sign}.{digits}f}".replace("-", "−"), between.replace("-", "−"), best)


def distance_table(run: Run) -> Table | None:
    """Fréchet distances of generated images, and of real ones, from other real ones."""
    if not run.evaluation.distances:
        return None
    names, first = {"generated": "MSM", "held-out": "real images"}, run.evaluation.distances[0]
    rows = [
        *(Row(names[d.kind], [Cell(d.name), cell(d.estimate, 2)], d.kind) for d in run.evaluation.distances),
        *(Row(method, [Cell("FID"), Cell(f"{v:.2f}")], "paper", True) for method, v in paper_fid(run.config).items()),
    ]
    note = (
        f"{first.estimate.count} images each, against {first.reference} other held-out images. What real images have "
        "is the floor for so few. FD-wavelet is no FID (msm.evaluate.perceptual)."
    )
    return Table("Fréchet distance from held-out images ↓", ["Distance", "Value"], rows, note)


def neighbour_table(run: Run) -> Table | None:
    """How near generated images come to training measurements, and how near real ones do."""
    rows = [
        Row(name, [Cell(f"{len(near)}"), Cell(f"{near[0]:.3f}"), cell(mean(near), 3)])
        for name, near in neighbour_distances(run.records).items()
    ]
    note = (
        "Distance over the entries that a training acquisition measured, relative to it. A repeated training image "
        "has that of the noise, far below those of held-out images."
    )
    title = "Nearest training measurement (memorisation)"
    return Table(title, ["Images", "Smallest", "Mean"], rows, note) if rows else None


def neighbour_distances(records: Sequence[Record]) -> dict[str, list[float]]:
    """Sorted distances to the nearest training measurement, of generated and of held-out images, where known."""
    found = {
        name: sorted(r.nearest.distance for r in records if r.kind == kind and r.nearest is not None)
        for kind, name in SETS.items()
    }
    return {name: distances for name, distances in found.items() if distances}


def _values(records: Sequence[Record], convention: Convention, name: str) -> list[float]:
    if name == "lpips":
        return [float(r.lpips or 0.0) for r in records]
    return [float(getattr(r.scores(convention), name)) for r in records]


def _gain(records: Sequence[Record], others: Sequence[Record]) -> Cell:
    """PSNR of what a model made against another method on the same images."""
    if records[0].kind not in LEARNED:
        return Cell("–")
    return cell(difference(*(_values(images, "plain", "psnr") for images in (records, others))), 2, sign="+")
