"""The charts of a page, from records and training logs."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..evaluate.bootstrap import Estimate, mean
from ..evaluate.records import LEARNED, Record, Run
from .svg import Series, chart
from .tables import methods, neighbour_distances

NAMES = {"sample": "MSM, one sample", "mean": "MSM, mean of samples"}
POINTS = 200  # of a curve


def cost_chart(group: Sequence[Run]) -> str:
    """PSNR (plain) against network calls, one line a kind of the model's images; classical methods are levels."""
    points: dict[str, list[tuple[float, Estimate]]] = {}
    levels = []
    for (method, _), records in methods(group).items():
        kind, e = records[0].kind, mean([r.scores("plain").psnr for r in records])
        if kind in LEARNED:
            points.setdefault(NAMES[kind], []).append((records[0].network_calls, e))
        else:
            levels.append((method, e.value))
    lines = [line(name, sorted(found, key=lambda point: point[0])) for name, found in points.items()]
    title = "PSNR against network calls an image"
    return chart(title, "network calls an image", "PSNR, dB", lines, levels=levels, log_x=True)


def loss_chart(log: Path) -> tuple[str, str]:
    """Training loss against images seen, means over equal parts of the log, and loss on measurements held out.

    Returns:
        name of the run, chart.

    Raises:
        DataError: a line of the log is damaged.
    """
    points, held_out = list[tuple[float, float]](), list[tuple[float, float]]()
    for n, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            record = json.loads(line)
            chosen, name = (held_out, "validation_loss") if "validation_loss" in record else (points, "loss")
            chosen.append((float(record["images"]), float(record[name])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{log}, line {n}: damaged; remove this line") from error
    if not points:
        raise DataError(f"{log}: is empty; train first")
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    x, y = ([sum(p[axis] for p in part) / len(part) for part in parts] for axis in (0, 1))
    title = f"Training loss: from {y[0]:.3g} to {y[-1]:.3g} over {points[-1][0]:.0f} images"
    losses = [Series("loss", x, y, markers=len(x) < 3)]
    if held_out:
        losses.append(Series("held out", [p[0] for p in held_out], [p[1] for p in held_out]))
    positive = min(min(series.y) for series in losses) > 0
    return log.parent.resolve().name, chart(title, "images seen", "training loss", losses, log_y=positive)


def neighbour_chart(records: Sequence[Record]) -> str | None:
    """Sorted distances to the nearest training measurement, of generated and of held-out images."""
    lines = []
    for name, found in neighbour_distances(records).items():
        shown = range(len(found))[:: -(-len(found) // POINTS)]
        lines.append(Series(name, [(n + 0.5) / len(found) for n in shown], [found[n] for n in shown]))
    title = "Distance to the nearest training measurement, in order, of generated and real images"
    return chart(title, "share of the images", "distance", lines) if lines else None


def line(name: str, points: Sequence[tuple[float, Estimate]]) -> Series:
    """A line through estimates, with their intervals."""
    low, high = zip(*(e.bounds for _, e in points))
    return Series(name, [x for x, _ in points], [e.value for _, e in points], low, high)
