"""Results as files: pictures, and the arrays beside them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..system.files import whole
from .files import write_array
from .run_folder import GRID, IMAGES, PICTURES


@dataclass(frozen=True)
class Column:
    """One column of a comparison figure.

    Args:
        title: heading.
        images: one image a row (B, C, H, W), real in [-1, 1] or complex.
        notes: a line under each image, if any.
        is_map: a map of errors or deviations, real and not negative, shown in false colours.
    """

    title: str
    images: Tensor
    notes: Sequence[str] | None = None
    is_map: bool = False


def displayable(images: Tensor) -> Tensor:
    """Images (B, C, H, W), real in [-1, 1] or complex (shown by magnitude), as brightness in [0, 1]."""
    shown = images.abs() if images.is_complex() else (images + 1) / 2
    return shown.float().cpu().clamp(0, 1)


def png(brightness: Tensor, columns: int = 8) -> bytes:
    """Images (B, C, H, W) in [0, 1] as one PNG, so many side by side."""
    from torchvision.utils import make_grid, save_image

    content = io.BytesIO()
    grid = make_grid(brightness, nrow=columns, padding=0 if len(brightness) == 1 else 2)
    save_image(grid, content, format="png")
    return content.getvalue()


def write_picture(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write images (B, C, H, W), real in [-1, 1] or complex, as one PNG, so many side by side."""
    with whole(path) as temporary:
        temporary.write_bytes(png(displayable(images), columns))


def write_samples(folder: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write images (B, C, H, W) as PNGs, as one grid, and as an array."""
    for name, image in zip(names, images):
        write_picture(folder / PICTURES / f"{name}.png", image[None])
    write_picture(folder / GRID, images)
    write_array(folder / IMAGES, images)


def write_comparison(path: Path, title: str, rows: Sequence[str], columns: Sequence[Column]) -> None:
    """Write a figure with one row an image and one column a method.

    Args:
        path: PNG file.
        title: heading of the figure.
        rows: a label for each row.
        columns: what stands side by side.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = (1.9 * len(columns) + 0.4, 2.15 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(rect=(0, 0, 0.985, 1)))
    figure.suptitle(title)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for c, column in enumerate(columns):
        shown = column.images.float().cpu() if column.is_map else displayable(column.images)
        top = float(shown.max()) if column.is_map else 1.0
        for r, image in enumerate(shown):
            axis: Any = axes[r, c]
            pixels = image.movedim(0, -1).squeeze(-1).numpy()
            drawn = axis.imshow(pixels, cmap="magma" if column.is_map else "gray", vmin=0, vmax=top)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if r == 0:
                axis.set_title(column.title, fontsize=10)
            if c == 0:
                axis.set_ylabel(rows[r], fontsize=10)
            if column.notes is not None:
                axis.set_xlabel(column.notes[r], fontsize=8)
        if column.is_map:
            figure.colorbar(drawn, ax=axes[:, c], location="right", fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=130)


def error_map(x_hat: Tensor, x: Tensor) -> Tensor:
    """Absolute error (B, 1, H, W): of magnitudes for complex images, mean over the colours for real ones."""
    if x.is_complex():
        return (x_hat.abs() - x.abs()).abs()
    return (x_hat - x).abs().mean(1, keepdim=True)


def spread(samples: Tensor) -> Tensor:
    """Standard deviation (B, 1, H, W) over K > 1 samples (B, K, C, H, W), of the magnitude for complex ones."""
    shown = samples.abs() if samples.is_complex() else samples
    return shown.std(1).mean(1, keepdim=True).to(torch.float32)
