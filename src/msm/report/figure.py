"""The pictures of evaluated runs as a figure to print: PDF, SVG or PNG."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import ConfigError
from ..evaluate.comparison import write_compared
from ..evaluate.records import LEARNED, Pictures, Record, Run

FORMATS = (".pdf", ".svg", ".png")


def check_figure(path: Path) -> None:
    """Refuse a figure of a format that is not offered, before any work.

    Raises:
        ConfigError: with those that are.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--figure: {path} must end in {', '.join(FORMATS)}")


def write_figure(path: Path, groups: Sequence[Sequence[Run]]) -> None:
    """Draw all images of the gallery of runs of the same measurements, a column each method.

    Args:
        path: PDF, SVG or PNG file.
        groups: evaluated runs, by measurements.

    Raises:
        ConfigError: the runs are of several measurements, or there are none.
    """
    if len(groups) != 1:
        raise ConfigError(f"--figure: shows runs of the same measurements; these are of {len(groups)}, name fewer runs")
    (runs,) = groups
    pictures, records = Pictures(), list[Record]()
    for run in runs:
        for title, kind in run.evaluation.layers.items():
            own = len(runs) > 1 and (kind in LEARNED or kind == "deviation")
            name = f"{title}\n{run.label}" if own else title
            pictures.setdefault(name, (kind, torch.from_numpy(run.gallery[title])))
            shown = (r for r in run.records if (r.kind == "generated" if kind == "neighbour" else r.method == title))
            records += [r.model_copy(update={"method": name}) for r in shown]
    names = [str(name) for name in runs[0].gallery["names"]]
    title = " and ".join(dict.fromkeys(run.label for run in runs))
    write_compared(path, title, names, pictures, records, rows=len(names))
