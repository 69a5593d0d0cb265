"""`msm train`: from a config to the weights of a run folder."""

from __future__ import annotations

from pathlib import Path

from ..config.build import make_masks
from ..config.load import Config
from ..data.store import MeasurementStore
from ..denoiser import PartialDenoiser
from ..output.figures import write_picture
from ..sampling import generate


def sample_grid(config: Config, denoiser: PartialDenoiser, store: MeasurementStore, path: Path) -> None:
    """A few images generated during training, with the coil maps of the store's first item."""
    device = next(denoiser.parameters()).device
    first = store.batch([0]).to(device)
    transform = first.transform
    masks = make_masks(config.data.mask, store.shape[-2:])
    z = generate(denoiser, transform, masks, store.shape, seeds=range(4), steps=25, draws=2)
    write_picture(path, transform.adjoint(z))
