"""The pictures of a page: every image as every method gives it, its error and its deviation, as PNG data URIs."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from ..evaluate.records import LEARNED, PictureKind, Run, caption
from ..output.figures import displayable, error_map, png

LAST = {"truth": 1, "deviation": 2}  # places after the reconstructions


class Layer(TypedDict):
    """One picture of one image: its error, where the truth is known, else "", and a line on each."""

    picture: str
    note: str
    error: str
    error_note: str


@dataclass(frozen=True)
class Viewer:
    """Pictures by image, then by layer; layers have numbers."""

    names: list[str]  # of the images
    layers: list[str]  # titles of the pictures of each image
    images: list[list[Layer]]
    right: int  # what is shown first, beside layer 0
    thumb: int  # what is shown small: the truth, or the generated image
    has_errors: bool  # whether there is a truth to be wrong against


@dataclass(frozen=True)
class _Stack:
    """One picture of every image (N, C, H, W), with a line on each image, by its name."""

    kind: PictureKind
    images: Tensor
    notes: dict[str, str]
    first: bool  # of the first run


def viewer(runs: Sequence[Run]) -> Viewer:
    """Pictures of runs of the same measurements; what does not depend on the model comes once."""
    stacks: dict[str, _Stack] = {}
    for run in runs:
        for title, kind in run.evaluation.layers.items():
            own = len(runs) > 1 and (kind in LEARNED or kind == "deviation")
            shown = (r for r in run.records if (r.kind == "generated" if kind == "neighbour" else r.method == title))
            images, notes = torch.from_numpy(run.gallery[title]), {r.image: caption(r) for r in shown}
            stacks.setdefault(f"{title}, {run.label}" if own else title, _Stack(kind, images, notes, run is runs[0]))
    stacks = dict(sorted(stacks.items(), key=lambda item: LAST.get(item[1].kind, 0)))
    kinds = [stack.kind for stack in stacks.values()]
    names = [str(name) for name in runs[0].gallery["names"]]
    pictures = [_layers(n, name, list(stacks.values())) for n, name in enumerate(names)]
    best = [n for n, s in enumerate(stacks.values()) if s.first and s.kind in ("sample", "mean", "neighbour")]
    has_errors = "truth" in kinds
    thumb = kinds.index("truth") if has_errors else 0
    return Viewer(names, list(stacks), pictures, max(best, default=0), thumb, has_errors)


def _layers(n: int, name: str, stacks: Sequence[_Stack]) -> list[Layer]:
    """The pictures of image number n; all its errors have one scale."""
    truth = next((s.images[n : n + 1] for s in stacks if s.kind == "truth"), None)
    errors = [None if truth is None or s.kind in LAST else error_map(s.images[n : n + 1], truth) for s in stacks]
    top = max((float(error.max()) for error in errors if error is not None), default=0.0)
    layers = []
    for stack, error in zip(stacks, errors):
        image = stack.images[n : n + 1]
        if stack.kind == "deviation":
            picture, note = _map(image, float(image.max()))
        else:
            picture, note = _uri(displayable(image)), stack.notes.get(name, "")
        wrong, wrong_note = ("", "") if error is None else _map(error, top)
        layers.append(Layer(picture=picture, note=note, error=wrong, error_note=wrong_note))
    return layers


def _map(values: Tensor, top: float) -> tuple[str, str]:
    """A map (1, 1, H, W), not negative, in false colours from 0 to top, and what they mean."""
    from matplotlib import colormaps

    colours = colormaps["inferno"]((values[0, 0].float() / (top or 1.0)).numpy())[..., :3]
    return _uri(torch.from_numpy(colours).movedim(-1, 0)[None]), f"black 0, bright {top:.3g}"


def _uri(brightness: Tensor) -> str:
    """An image (1, C, H, W) in [0, 1] as a PNG."""
    return "data:image/png;base64," + base64.b64encode(png(brightness)).decode()
