"""Results as files: pictures, and the arrays beside them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor

from ..system.files import whole
from .files import write_array
from .run_folder import GRID, IMAGES, PICTURES

MAKER = "msm, measurement score-based diffusion models"  # in files that need not lie in a run folder
PANEL, GAP = 1.75, 0.05  # inches: the width of a picture, and what is between two


@dataclass(frozen=True)
class Column:
    """One column of a comparison figure.

    Args:
        title: heading.
        images: one image a row (B, C, H, W), real in [-1, 1] or complex.
        notes: a line in each picture, if any.
        is_map: a map of errors or deviations, real and not negative, shown in false colours with a bar below.
        top: of a map, the value of its brightest colour, in all rows; None: the largest one.
        marked: whether a note is that of the best picture of its row.
    """

    title: str
    images: Tensor
    notes: Sequence[str] | None = None
    is_map: bool = False
    top: float | None = None
    marked: Sequence[bool] | None = None

    @property
    def shown(self) -> Tensor:
        """What is drawn (B, C, H, W), from 0 to `highest`."""
        return self.images.float().cpu() if self.is_map else displayable(self.images)

    @property
    def highest(self) -> float:
        """The value of the brightest colour."""
        return (self.top or float(self.images.max()) or 1.0) if self.is_map else 1.0


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
    """Write a figure by `comparison`, as PNG, PDF or SVG."""
    with whole(path) as temporary:
        temporary.write_bytes(comparison(title, rows, columns, path.suffix.lower()))


def comparison(title: str, rows: Sequence[str], columns: Sequence[Column], suffix: str = ".png") -> bytes:
    """A figure with one row an image and one column a method, a colour bar below each column of maps.

    Args:
        title: heading of the figure.
        rows: a label for each row, or nothing.
        columns: what stands side by side.
        suffix: .png, .pdf or .svg.

    Returns:
        the content of a file of this format.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "msm", "svg.fonttype": "none"}  # names of files
    with rc_context(style | {"pdf.fonttype": 42}):
        height, width = columns[0].images.shape[-2:]
        tall = PANEL * height / width
        marked = any(any(column.marked or ()) for column in columns)
        left, bottom = 0.3 if any(rows) else 0.06, 0.5 if marked or any(c.is_map for c in columns) else 0.06
        wide, high = left + len(columns) * (PANEL + GAP), bottom + len(rows) * (tall + GAP)
        heading, titles = _wrapped(title, int(11 * wide)), [_wrapped(column.title, 26) for column in columns]
        above = 0.15 + 0.15 * max(text.count("\n") + 1 for text in titles)
        size = wide, high + above + 0.2 * (heading.count("\n") + 1)
        figure = Figure(figsize=size)
        figure.text(0.5, 1 - 0.06 / size[1], heading, ha="center", va="top", fontsize=11)

        def box(x: float, y: float, w: float, h: float) -> Any:
            return figure.add_axes((x / size[0], y / size[1], w / size[0], h / size[1]))

        for c, column in enumerate(columns):
            x = left + c * (PANEL + GAP)
            middle = (x + PANEL / 2) / size[0], (high + above / 2 - 0.02) / size[1]
            figure.text(*middle, titles[c], ha="center", va="center", fontsize=9)
            for r in range(len(rows)):
                drawn = _panel(box(x, bottom + (len(rows) - 1 - r) * (tall + GAP), PANEL, tall), column, r)
                if c == 0:
                    drawn.axes.set_ylabel(_short(rows[r], int(13 * tall)), fontsize=8)
            if column.is_map:
                bar = figure.colorbar(drawn, cax=box(x + 0.1, 0.36, PANEL - 0.2, 0.07), orientation="horizontal")
                bar.ax.tick_params(labelsize=7)
        if marked:
            said = "yellow: the highest PSNR of its row"
            figure.text(left / size[0], bottom / 2 / size[1], said, va="center", fontsize=7)
        about = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(suffix, {})
        maker: Any = {"Software" if suffix == ".png" else "Creator": MAKER, **about}
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=150, metadata=maker)
        return content.getvalue()


def _panel(axis: Any, column: Column, row: int) -> Any:
    """One picture, with its note in the corner."""
    pixels = column.shown[row].movedim(0, -1).squeeze(-1).numpy()
    colours = "magma" if column.is_map else "gray"
    drawn = axis.imshow(pixels, cmap=colours, vmin=0, vmax=column.highest, interpolation="nearest", aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if column.notes and column.notes[row]:
        best = column.marked is not None and column.marked[row]
        back = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5}
        look = {"weight": "bold", "color": "#ffd24d"} if best else {"color": "white"}
        axis.text(0.02, 0.03, column.notes[row], fontsize=6.5, transform=axis.transAxes, bbox=back, **look)
    return drawn


def _wrapped(text: str, width: int) -> str:
    """A heading in lines of so many letters, broken within names that are longer."""
    return "\n".join(line for part in text.splitlines() for line in wrap(part, width)) or text


def _short(text: str, length: int) -> str:
    """A name that fits beside a picture: its ends tell more than its middle."""
    half = max(3, length // 2 - 1)
    return text if len(text) <= 2 * half + 1 else f"{text[:half]}…{text[-half:]}"


def error_map(x_hat: Tensor, x: Tensor) -> Tensor:
    """Absolute error (B, 1, H, W): of magnitudes for complex images, mean over the colours for real ones."""
    if x.is_complex():
        return (x_hat.abs() - x.abs()).abs()
    return (x_hat - x).abs().mean(1, keepdim=True)


def spread(samples: Tensor) -> Tensor:
    """Standard deviation (B, 1, H, W) over K > 1 samples (B, K, C, H, W), of the magnitude for complex ones."""
    shown = samples.abs() if samples.is_complex() else samples
    return shown.std(1).mean(1, keepdim=True).to(torch.float32)
