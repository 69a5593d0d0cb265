"""What `msm sample` does with photos that miss pixels: fill in what they miss, each its own."""

import torch

from ..config.load import Config
from ..denoiser import PartialDenoiser
from ..output.figures import Column, spread, write_comparison, write_samples
from ..output.files import write_array, write_arrays
from ..output.run_folder import COMPARISON, MEASURED, SAMPLES, are_there, file_names, new_results
from ..sample.draw import filled_samples
from ..system.console import progress, say
from ..system.processes import cost_of, processes
from .inputs import masked_test_items
from .kept import kept_parts

SHOWN = 8  # photos in the comparison


def run_filling(config: Config, denoiser: PartialDenoiser, *, force: bool = False) -> None:
    """Fill in the first sample.count photos of the test split, into the run folder."""
    settings, folder = config.sample, config.setting.save_dir
    names, photos = masked_test_items(config)
    noise_std = torch.as_tensor(photos.noise_std)
    parts = kept_parts(config, denoiser, names, [photos.values, photos.mask, noise_std])
    if are_there(folder, parts.identity, force=force):
        return
    total, cost = len(names) * settings.samples * settings.steps, cost_of(settings.batch_size)
    with progress("filling in", total, shared=True, cost=cost) as advance:
        inputs, samples = filled_samples(denoiser, photos, settings, advance, parts.keep)
    if not processes().is_main_process:
        return
    files, mean = file_names(names), samples.mean(1)
    columns = [Column("measured", inputs)]
    if settings.samples > 1:
        columns.append(Column(f"mean of {settings.samples}", mean))
    columns.append(Column("one sample", samples[:, 0]))
    if settings.samples > 1:
        columns.append(Column("std. deviation", spread(samples), is_map=True))
    shown = [Column(c.title, c.images[:SHOWN], is_map=c.is_map) for c in columns]
    with new_results(config, folder, parts.identity, force=force) as filled:
        write_samples(filled, mean, files)
        write_array(filled / SAMPLES, samples)
        write_arrays(filled / MEASURED, {"values": photos.values, "mask": photos.mask, "noise_std": noise_std}, names)
        write_comparison(filled / COMPARISON, folder.name, files[:SHOWN], shown)
    parts.remove()
    missing = 1 - photos.mask.float().mean().item()
    said = f"{len(names)} photos filled in, of which {missing:.1%} of the pixels were missing"
    say(f"{folder}: {said}; {COMPARISON}, PNGs of the means, {SAMPLES}, {MEASURED}")
