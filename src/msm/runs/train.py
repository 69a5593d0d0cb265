"""`msm train`: from a config to the weights of a run folder."""

from __future__ import annotations

from pathlib import Path

from ..config.load import Config
from ..data.store import MeasurementStore
from ..denoiser import PartialDenoiser
from ..output.figures import write_picture
from ..sampling import Sampler, generate


def sample_grid(config: Config, denoiser: PartialDenoiser, store: MeasurementStore, path: Path) -> None:
    """A few images generated during training, with the coil maps of the store's first item."""
    first = store.batch([0]).to(denoiser.schedule.device)
    sampler = Sampler(steps=25, draws=2)
    z = generate(denoiser, store.shape, seeds=range(4), transform=first.transform, sampler=sampler)
    write_picture(path, first.transform.adjoint(z))
