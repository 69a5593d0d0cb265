"""What `msm train` does: from a config to the weights of a run folder."""

import json
from typing import Any

from ..config.build import make_loss
from ..config.load import Config
from ..data.store import MeasurementStore
from ..output.figures import write_picture
from ..output.run_folder import IMAGES, PICTURES, WEIGHTS, check_folder, record_run
from ..sampling import Sampler, generate
from ..system.console import say
from ..system.files import fingerprint
from ..system.processes import processes
from ..train.trainer import Trainer
from .inputs import training_data
from .weights import new_denoiser


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
    assert denoiser.masks is not None
    denoiser.masks = denoiser.masks.resized((store.shape[1], store.shape[2]))

    def on_checkpoint(images: int) -> None:
        """A few images generated with the coil maps of the store's first item."""
        first = store.batch([0]).to(denoiser.schedule.device)
        sampler = Sampler(steps=25, draws=2)
        z = generate(denoiser, store.shape, seeds=range(4), transform=first.transform, sampler=sampler)
        write_picture(folder / PICTURES / f"{images:09d}.png", first.transform.adjoint(z))

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
    if done:
        say(f"{folder / WEIGHTS}: averaged weights")
    else:
        say(f"{folder}: stopped with a checkpoint; the same command goes on from there")
    return done


def _identity(config: Config, store: MeasurementStore) -> dict[str, Any]:
    """What a run that goes on must have in common with its checkpoints, beside its network and its `train` block."""
    about = [json.dumps(store.provenance, sort_keys=True), str(store.shape), *store.names(range(len(store)))]
    diffusion = {f"diffusion.{name}": v for name, v in config.diffusion.model_dump(mode="json").items()}
    return {**diffusion, "measurements": f"{len(store)} items, {fingerprint(about, [])[:8]}"}
