"""Reconstructions of the same measurements side by side: what `compare.png` shows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..output.figures import Column, error_map, spread, write_comparison
from .records import Kind, Pictures, Record, caption

ROWS = 8  # images of a figure


def reconstructions(inputs: Tensor, classical: Mapping[str, Tensor], samples: Tensor) -> dict[str, tuple[Kind, Tensor]]:
    """All that was made of the same measurements, by what a reader calls it.

    Args:
        inputs: (B, C, H, W).
        classical: images of classical methods, by name.
        samples: (B, K, C, H, W).
    """
    made: dict[str, tuple[Kind, Tensor]] = {"zero-filled" if inputs.is_complex() else "input": ("input", inputs)}
    made |= {name: ("classical", images) for name, images in classical.items()}
    made["MSM, one sample"] = "sample", samples[:, 0]
    if (number := samples.shape[1]) > 1:
        made[f"MSM, mean of {number}"] = "mean", samples.mean(1)
    return made


def all_pictures(made: Mapping[str, tuple[Kind, Tensor]], truth: Tensor, samples: Tensor) -> Pictures:
    """Reconstructions, the truth, and how much the samples differ, if there are several."""
    pictures: Pictures = {**made, "truth": ("truth", truth)}
    if samples.shape[1] > 1:
        pictures["standard deviation"] = "deviation", spread(samples)
    return pictures


def write_compared(
    path: Path, title: str, names: Sequence[str], pictures: Pictures, records: Sequence[Record], rows: int = ROWS
) -> None:
    """Draw pictures of the same images, a column each, with the score of each image, errors and deviations.

    Args:
        path: PNG, PDF or SVG file.
        title: heading.
        names: of the images, in order.
        pictures: (B, C, H, W) each, by title.
        records: the scores are taken from those that have the image's name and the picture's title as method.
        rows: images at most.
    """
    known = {(record.method, record.image): record for record in records}
    scores = {key: record.plain.psnr for key, record in known.items() if record.plain is not None}
    best = {name: max((psnr for (_, image), psnr in scores.items() if image == name), default=0.0) for name in names}
    columns, maps = [], []
    for label, (kind, images) in pictures.items():
        if kind == "deviation":
            maps.append(_map(label, images[:rows]))
            continue
        notes = [caption(known[label, name]) if (label, name) in known else "" for name in names[:rows]]
        marked = [scores.get((label, name)) == best[name] for name in names[:rows]]
        columns.append(Column(label, images[:rows], notes, marked=marked))
    errors = [_map(f"|error| of {label}", error_map(x[:rows], truth[:rows])) for label, x, truth in _judged(pictures)]
    top = max((column.top or 0.0 for column in errors), default=0.0)
    errors = [Column(column.title, column.images, column.notes, True, top=top) for column in errors]
    write_comparison(path, title, names[:rows], [*columns, *errors, *maps])


def _judged(pictures: Pictures) -> Iterable[tuple[str, Tensor, Tensor]]:
    """What a model made last, by title, with the truth: its errors are shown."""
    truth = next((images for kind, images in pictures.values() if kind == "truth"), None)
    kinds = [kind for kind, _ in pictures.values()]
    shown = "mean" if "mean" in kinds else "sample"
    return ((label, x, truth) for label, (kind, x) in pictures.items() if kind == shown and truth is not None)


def _map(title: str, values: Tensor) -> Column:
    """A map, not negative, with its root-mean-square; a few bright pixels do not set the scale."""
    notes = [f"RMS {float(image.square().mean().sqrt()):.4f}" for image in values]
    return Column(title, values, notes, True, top=float(torch.quantile(values.flatten().float(), 0.998)))
