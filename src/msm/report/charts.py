"""The charts of a page, from records and training logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..evaluate.bootstrap import mean
from ..evaluate.calibration import intervals
from ..evaluate.records import Record, Run
from .svg import Series, chart
from .tables import coverage, methods

POINTS = 200  # of a loss curve


def calibration_chart(group: Sequence[Run]) -> str | None:
    """Observed against expected coverage, with intervals over images; None without several samples a measurement."""
    lines = []
    for (method, label), records in methods(group).items():
        if records[0].ranks:
            found = [coverage(records, level) for level in range(len(intervals(records[0].ranks)))]
            observed = [e for _, e in found]
            low, high = [_or(e.low, e.value) for e in observed], [_or(e.high, e.value) for e in observed]
            expected = [x for x, _ in found]
            lines.append(Series(label or method, expected, [e.value for e in observed], low, high))
    if not lines:
        return None
    title = "Calibration: observed against expected coverage; on the dotted diagonal all is well"
    return chart(title, "expected coverage", "observed coverage", lines, diagonal=True)


def cost_chart(group: Sequence[Run]) -> str:
    """PSNR (plain) against network calls, one line a method of the model; classical methods are levels."""
    points: dict[str, list[tuple[int, float, float, float]]] = {}
    levels = []
    for (method, _), records in methods(group).items():
        e = mean([r.plain.psnr for r in records if r.plain])
        if not records[0].network_calls:
            levels.append((method, e.value))
            continue
        kind = "one sample" if "one sample" in method else "mean of samples"
        low, high = _or(e.low, e.value), _or(e.high, e.value)
        points.setdefault(kind, []).append((records[0].network_calls, e.value, low, high))
    lines = []
    for kind, found in points.items():
        calls, values, lows, highs = zip(*sorted(found))
        lines.append(Series(f"MSM, {kind}", calls, values, lows, highs))
    title = "PSNR against network calls an image"
    return chart(title, "network calls an image", "PSNR, dB", lines, levels=levels, log_x=True)


def loss_chart(log: Path) -> tuple[str, str]:
    """Training loss against images seen, means over equal parts of the log: (name of the run, chart).

    Raises:
        DataError: a line of the log is damaged.
    """
    points = []
    for n, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            record = json.loads(line)
            points.append((float(record["images"]), float(record["loss"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{log}, line {n}: damaged; remove this line") from error
    if not points:
        raise DataError(f"{log}: is empty; train first")
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    x, y = ([sum(p[axis] for p in part) / len(part) for part in parts] for axis in (0, 1))
    title = f"Training loss: from {y[0]:.3g} to {y[-1]:.3g} over {points[-1][0]:.0f} images"
    losses = Series("loss", x, y, markers=len(x) < 3)
    return log.parent.resolve().name, chart(title, "images seen", "training loss", [losses], log_y=min(y) > 0)


def neighbour_chart(records: Sequence[Record]) -> str | None:
    """Sorted distances to the nearest training measurement, of generated and of held-out images."""
    lines = []
    for method, name in (("MSM", "generated"), ("held-out", "real, held out")):
        found = sorted(r.nearest.distance for r in records if r.method == method and r.nearest is not None)
        if found:
            lines.append(Series(name, [(n + 0.5) / len(found) for n in range(len(found))], found))
    title = "Distance to the nearest training measurement, in order, of generated and real images"
    return chart(title, "share of the images", "distance", lines) if lines else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
