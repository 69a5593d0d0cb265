"""The E-step of refinement: every acquisition completed by posterior samples, in one file (SPEC §14)."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.store import Acquisitions
from ..data_step import DataStep
from ..denoiser import PartialDenoiser
from ..losses import noise_levels
from ..measurement import Measurement
from ..operators import Problem, Undersampling
from ..sampling import Sampler, reconstruct
from ..system.files import whole
from ..system.processes import processes, shared_out
from .draw import looking
from .kept_batches import Parts


def completions(denoiser: PartialDenoiser, measurement: Measurement) -> Problem:
    """The problem of complete images given what was measured of them: H is each acquisition's own mask.

    Noise below σ_0, the lowest level of the schedule, counts as σ_0: of less the model knows nothing.
    """
    lowest = denoiser.schedule.sigmas[0].item()
    rho = noise_levels(measurement).clamp(min=lowest)[:, None, None, None]
    return Problem(measurement.values, Undersampling(measurement.mask), measurement.transform, rho)


def complete(
    denoiser: PartialDenoiser,
    data: Acquisitions,
    path: Path,
    *,
    sampler: Sampler,
    data_step: DataStep,
    samples: int,
    seed: int,
    batch_size: int,
    parts: Parts,
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Write posterior samples of all acquisitions into one file, those that an earlier run kept among them.

    Args:
        denoiser: partial denoiser with its mask law.
        data: N acquisitions.
        path: the file (.npy), (N, samples, C, H, W).
        sampler: as in `msm.reconstruct`.
        data_step: as in `msm.reconstruct`.
        samples: of each acquisition.
        seed: of the first sample; the one after it has the next.
        batch_size: samples at a time, shared out over processes; changes no result.
        parts: keeps what was drawn until the file is complete.
        advance: told how many sampler steps were done, a step of each image counting one.
    """
    look = looking()

    def draw(numbers: range) -> Tensor:
        items = [n // samples for n in numbers]
        problem = completions(denoiser, data.batch(items, [0] * len(items)).to(denoiser.schedule.device))
        z = reconstruct(
            denoiser,
            problem,
            seeds=[seed + n for n in numbers],
            sampler=sampler,
            data_step=data_step,
            callback=lambda *_: advance(len(numbers)),
        )
        return look(problem.transform.adjoint(z).cpu())

    drawn = parts.keep(draw, lambda numbers: advance(len(numbers) * sampler.steps))

    def kept(numbers: range) -> range:
        drawn(numbers)  # onto the disk: in memory they may be too many
        return numbers

    done = shared_out(len(data) * samples, batch_size, kept)
    if processes().is_main_process:
        write_joined(path, (parts.read(numbers) for numbers in done), (len(data), samples))
        parts.remove()
    processes().wait_for_everyone()


def write_joined(path: Path, batches: Iterable[Tensor], counts: tuple[int, ...]) -> None:
    """Write batches (B, …) one after the other as one array (*counts, …), .npy.

    Not through a memory map: where a disk is full, that ends the process.
    """
    with whole(path) as temporary, temporary.open("wb") as file:
        for n, batch in enumerate(batches):
            array = batch.numpy()
            if not n:
                shape = (*counts, *array.shape[1:])
                about = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, about)
            file.write(array.tobytes())
