"""What `msm train` does: from a config to the weights of a run folder."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config.build import make_loss
from ..config.load import Config
from ..config.trained import TrainConfig
from ..data.store import MeasurementStore
from ..denoiser import PartialDenoiser
from ..output.figures import displayable, write_picture
from ..output.run_folder import IMAGES, PICTURES, check_folder, record_run
from ..sampling import Sampler, generate
from ..system.console import say
from ..system.files import fingerprint
from ..system.lock import alone
from ..system.places import WEIGHTS
from ..system.processes import processes
from ..train.trainer import Trainer
from .calibrate import calibrate
from .inputs import masks_seen, training_data
from .weights import new_denoiser

LOOK = Sampler(steps=25, draws=2)  # for pictures to look at


def run_training(config: Config) -> bool:
    """Train on the measurements of a config, into its run folder.

    Returns:
        whether training is complete; False if it was stopped, with a checkpoint.
    """
    folder = config.setting.save_dir
    check_folder(folder, IMAGES)
    with alone(folder, folder=True):
        return _train(config, folder)


def _train(config: Config, folder: Path) -> bool:
    denoiser = new_denoiser(config)
    with processes().main_process_first():  # the others find the store written
        store, data = training_data(config, folder, denoiser.divisor)
    if denoiser.masks is None:
        denoiser.masks = masks_seen(store, mirrored=config.train.augment)
    denoiser.masks = denoiser.masks.resized((store.shape[1], store.shape[2]))
    denoiser.record["measurements"] = {"count": len(data), "noise_std": data.largest_noise_std}

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
        averaged = PartialDenoiser.load(folder / WEIGHTS)
        if averaged.measured_error is None:  # else the run was complete before
            calibrate(averaged, folder / WEIGHTS, data, config.train)
    if done:
        say(f"{folder / WEIGHTS}: averaged weights")
    else:
        say(f"{folder}: stopped with a checkpoint; the same command goes on from there")
    return done


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
