"""The pictures of a page: every image as every method gives it, its error and its deviation, as PNG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from ..evaluate.records import Record, Run
from ..output.figures import displayable, error_map

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TRUTH, DEVIATION, NEIGHBOUR = "truth", "standard deviation", "nearest training measurement"


@dataclass(frozen=True)
class Layer:
    """One picture of one image: its error, where the truth is known, and a line on each."""

    picture: str
    note: str
    error: str = ""
    error_note: str = ""


@dataclass(frozen=True)
class Viewer:
    """Pictures by image, then in the order of `layers`; `left` and `right` are what is shown first."""

    names: list[str]
    layers: list[str]
    images: list[list[Layer]]
    left: int
    right: int

    @property
    def thumb(self) -> int:
        """The layer shown small: the truth, or the generated image."""
        return self.layers.index(TRUTH) if TRUTH in self.layers else 0

    @property
    def has_errors(self) -> bool:
        """Whether there is a truth to be wrong against."""
        return TRUTH in self.layers

    def data(self) -> list[list[dict[str, str]]]:
        """The pictures, for the page's script."""
        return [[asdict(layer) for layer in layers] for layers in self.images]


def viewer(runs: Sequence[Run]) -> Viewer:
    """Pictures of runs of the same measurements; what does not depend on the model comes once."""
    names = [str(name) for name in runs[0].gallery["names"]]
    stacks: dict[str, Tensor] = {}
    notes: dict[tuple[str, str], str] = {}
    for run in runs:
        suffix = _suffix(run, runs)
        for name, array in run.gallery.items():
            if name != "names":
                learned = name.startswith("MSM") or name == DEVIATION
                stacks.setdefault(name + suffix * learned, torch.from_numpy(array))
        for record in run.records:
            title = record.method + suffix * (record.network_calls > 0)
            notes[NEIGHBOUR if record.nearest else title, record.image] = _note(record)
    if TRUTH in stacks:  # the truth beside the reconstructions, the deviations last
        deviations = {name: stacks.pop(name) for name in list(stacks) if name.startswith(DEVIATION)}
        stacks = {**stacks, TRUTH: stacks.pop(TRUTH), **deviations}
    titles = list(stacks)
    images = [_layers(n, name, stacks, notes) for n, name in enumerate(names)]
    own = _suffix(runs[0], runs)
    means = [n for n, title in enumerate(titles) if title.startswith("MSM") and title.endswith(own)]
    right = means[-1] if TRUTH in stacks else len(titles) - 1
    return Viewer(names, titles, images, 0, right)


def _suffix(run: Run, runs: Sequence[Run]) -> str:
    """What tells a run's own pictures from those of others, if there are any."""
    return f", {run.label}" if len(runs) > 1 else ""


def _layers(n: int, name: str, stacks: Mapping[str, Tensor], notes: Mapping[tuple[str, str], str]) -> list[Layer]:
    """The pictures of image number n; all its errors have one scale."""
    truth = stacks.get(TRUTH)
    wrong = {} if truth is None else {t: error_map(x[n : n + 1], truth[n : n + 1]) for t, x in stacks.items()}
    wrong = {title: error for title, error in wrong.items() if title != TRUTH and not title.startswith(DEVIATION)}
    top = max((float(error.max()) for error in wrong.values()), default=0.0)
    layers = []
    for title, stack in stacks.items():
        image = stack[n : n + 1]
        if title.startswith(DEVIATION):
            high = float(image.max())
            layers.append(Layer(_map(image, high), f"black 0, bright {high:.3g}"))
            continue
        note = notes.get((title, name), "")
        if title not in wrong:
            layers.append(Layer(_picture(image), note))
            continue
        scale = f"black 0, bright {top:.3g}"
        layers.append(Layer(_picture(image), note, _map(wrong[title], top), scale))
    return layers


def _note(record: Record) -> str:
    """A line below a picture: its scores, or what it is compared with."""
    if record.plain is not None:
        return f"{record.plain.psnr:.2f} dB, SSIM {record.plain.ssim:.3f}"
    if record.nearest is not None:
        return f"{record.nearest.name}, distance {record.nearest.distance:.3f}"
    return ""


def _picture(image: Tensor) -> str:
    """An image (1, C, H, W) as a PNG."""
    pixels = (displayable(image)[0] * 255).round().to(torch.uint8).movedim(0, -1).squeeze(-1)
    return _png(pixels.numpy())


def _map(values: Tensor, top: float) -> str:
    """A map (1, 1, H, W), not negative, in false colours from 0 to top."""
    from matplotlib import colormaps

    share = (values[0, 0].float() / (top or 1.0)).numpy()
    return _png(colormaps["inferno"](share, bytes=True)[..., :3])


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
