"""What `msm calibrate` does, and the end of `msm train`: measure how wrong the estimates of weights are (SPEC §13)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..config.load import Config
from ..config.trained import TrainConfig
from ..data.store import Acquisitions
from ..denoiser import ERROR_FILE, PartialDenoiser
from ..measured_error import measure_error
from ..system.console import progress, say
from ..system.lock import alone
from ..system.places import weights_folder
from ..system.processes import arithmetic, processes
from ..train.batches import validation_count
from .inputs import training_data

CALIBRATED_ON = 128  # measurements


def run_calibration(config: Config) -> None:
    """Measure the error of the weights in setting.pretrained_model_dir, or of the run folder, on its measurements."""
    folder = config.setting.save_dir
    weights = weights_folder(config.setting.pretrained_model_dir or folder)
    with alone(folder, folder=True):
        denoiser = PartialDenoiser.load(weights)
        _, data = training_data(config, folder, denoiser.divisor)
        calibrate(denoiser, weights, data, config.train)


def calibrate(denoiser: PartialDenoiser, weights: Path, data: Acquisitions, settings: TrainConfig) -> None:
    """Measure the error of a denoiser, and store it beside its weights; says on which measurements.

    On those that it was not trained on (train.validation_share), if there are any: of others it errs by less.
    """
    held_out = validation_count(settings, len(data))
    known = "of the measurements trained on, which it knows better than others (train.validation_share keeps some out)"
    which = f"of {held_out} measurements that were held out" if held_out else known
    among = range(len(data) - held_out, len(data)) if held_out else range(len(data))
    count = measured_on(denoiser, weights, data, settings, among)
    say(f"{weights / ERROR_FILE}: the error of the weights' estimates, measured on {count} {which}")


def measured_on(
    denoiser: PartialDenoiser, weights: Path, data: Acquisitions, settings: TrainConfig, among: Sequence[int]
) -> int:
    """Measure the error of a denoiser on some of the acquisitions with these numbers; returns on how many."""
    denoiser.to(processes().device).eval()
    stream = torch.Generator().manual_seed(settings.seed)
    items = [among[i] for i in torch.randperm(len(among), generator=stream)[:CALIBRATED_ON].tolist()]
    rows = [items[i : i + settings.batch_size] for i in range(0, len(items), settings.batch_size)]
    batches = (data.batch(part, [0] * len(part)).to(denoiser.schedule.device) for part in rows)
    noise = torch.Generator(denoiser.schedule.device).manual_seed(settings.seed)
    with progress("measuring the error", len(items)) as advance, arithmetic(settings.mixed_precision):
        denoiser.measured_error = measure_error(denoiser, batches, noise, advance=advance)
    denoiser.save_error(weights)
    return len(items)
