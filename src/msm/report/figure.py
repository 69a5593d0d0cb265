"""The pictures of evaluated runs as a figure to print: PDF, SVG or PNG."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import ConfigError
from ..evaluate.comparison import write_compared
from ..evaluate.records import LEARNED, Pictures, Record, Run
from ..output.figures import MAKER

FORMATS = (".pdf", ".svg", ".png")


def check_output(option: str, path: Path, formats: Sequence[str], *, force: bool = False) -> None:
    """Refuse a file to write, before any work: one of a format that is not offered, or of others.

    Args:
        option: of the command.
        path: the file.
        formats: the endings that are offered.
        force: whether a file of others is replaced.

    Raises:
        ConfigError: with what to do.
    """
    if path.suffix.lower() not in formats:
        raise ConfigError(f"{option}: {path} must end in {', '.join(formats)}")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file")
    if path.exists() and not force and MAKER.encode() not in path.read_bytes():
        raise ConfigError(f"{option}: {path} is there, and was not made by msm report; choose another name, or --force")


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
