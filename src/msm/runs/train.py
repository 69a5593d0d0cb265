"""What `msm train` does: from a config to the weights of a run folder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.build import make_loss
from ..config.load import Config
from ..config.trained import TrainConfig
from ..data.store import Acquisitions, MeasurementStore
from ..denoiser import ERROR_FILE, PartialDenoiser
from ..measured_error import measure_error
from ..output.figures import displayable, write_picture
from ..output.run_folder import IMAGES, PICTURES, check_folder, record_run
from ..sampling import Sampler, generate
from ..system.console import progress, say
from ..system.files import fingerprint
from ..system.places import WEIGHTS, weights_folder
from ..system.processes import arithmetic, processes
from ..train.trainer import Trainer
from .inputs import masks_seen, training_data
from .weights import new_denoiser

CALIBRATED_ON = 128  # measurements
LOOK = Sampler(steps=25, draws=2)  # for pictures to look at


def run_training(config: Config) -> bool:
    """Train on the measurements of a config, into its run folder.

    Returns:
        whether training is complete; False if it was stopped, with a checkpoint.
    """
    folder = config.setting.save_dir
    check_folder(folder, IMAGES)
    denoiser = new_denoiser(config)
    with processes().main_process_first():  # the others find the store written
        store, data = training_data(config, folder, denoiser.divisor)
    if denoiser.masks is None:
        denoiser.masks = masks_seen(store, mirrored=config.train.augment)
    denoiser.masks = denoiser.masks.resized((store.shape[1], store.shape[2]))

    def on_checkpoint(images: int) -> Tensor | None:
        """A few images generated with the coil maps of the store's first item."""
        if not _is_due(images, config.train):
            return None
        first = store.batch([0]).to(denoiser.schedule.device)
        seeds = range(config.train.pictures)
        x = first.transform.adjoint(
            generate(denoiser, store.shape, seeds=seeds, transform=first.transform, sampler=LOOK)
        )
        write_picture(folder / PICTURES / f"{images:09d}.png", x)
        return displayable(x)

    trainer = Trainer(
        denoiser,
        data,
        config.train,
        grid=denoiser.schedule.training_grid(config.diffusion.train_steps, config.diffusion.train_grid),
        loss=make_loss(config.train, data.largest_noise_std),
        identity=_identity(config, store),
        on_start=lambda: record_run(config, folder),
        on_checkpoint=on_checkpoint,
    )
    done = trainer.run(folder)
    if done and processes().is_main_process:
        calibrate(folder / WEIGHTS, data, config.train, only_if_missing=True)
    if done:
        say(f"{folder / WEIGHTS}: averaged weights, and the error of their estimates")
    else:
        say(f"{folder}: stopped with a checkpoint; the same command goes on from there")
    return done


def calibrate_run(config: Config) -> None:
    """Measure the error of the weights in setting.pretrained_model_dir, or of the run folder, on its measurements."""
    folder = config.setting.save_dir
    weights = weights_folder(config.setting.pretrained_model_dir or folder)
    denoiser = PartialDenoiser.load(weights)
    _, data = training_data(config, folder, denoiser.divisor)
    calibrate(weights, data, config.train)
    count = min(len(data), CALIBRATED_ON)
    say(f"{weights / ERROR_FILE}: the error of the weights' estimates, measured on {count} of their measurements")


def calibrate(weights: Path, data: Acquisitions, settings: TrainConfig, *, only_if_missing: bool = False) -> None:
    """Measure the error of weights on some of their training measurements, and store it beside them (SPEC §13)."""
    denoiser = PartialDenoiser.load(weights).eval()
    if only_if_missing and denoiser.measured_error is not None:
        return
    denoiser.to(processes().device)
    stream = torch.Generator().manual_seed(settings.seed)
    items = torch.randperm(len(data), generator=stream)[:CALIBRATED_ON].tolist()
    rows = [items[i : i + settings.batch_size] for i in range(0, len(items), settings.batch_size)]
    batches = (data.batch(part, [0] * len(part)).to(denoiser.schedule.device) for part in rows)
    noise = torch.Generator(denoiser.schedule.device).manual_seed(settings.seed)
    with progress("measuring the error", len(items)) as advance, arithmetic(settings.mixed_precision):
        denoiser.measured_error = measure_error(denoiser, batches, noise, advance=advance)
    denoiser.save_error(weights)


def _is_due(images: int, settings: TrainConfig) -> bool:
    """Whether a checkpoint gets pictures: all do if these take a tenth of the network passes of training at most.

    A training image takes some three passes. Of more frequent checkpoints as many get pictures, and the last one.
    """
    if settings.pictures == 0 or images >= settings.images:
        return settings.pictures > 0
    apart = 10 * settings.pictures * LOOK.steps * LOOK.draws / 3  # images
    return images // apart > (images - settings.checkpoint_images) // apart


def _identity(config: Config, store: MeasurementStore) -> dict[str, Any]:
    """What a run that goes on must have in common with its checkpoints, beside its network and its `train` block."""
    about = [json.dumps(store.provenance, sort_keys=True), str(store.shape), *store.names(range(len(store)))]
    diffusion = {f"diffusion.{name}": v for name, v in config.diffusion.model_dump(mode="json").items()}
    return {**diffusion, "measurements": f"{len(store)} items, {fingerprint(about, [])[:8]}"}
