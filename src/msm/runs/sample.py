"""Runs that sample: from a config and a denoiser to the files of a run folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..config.load import Config
from ..data.acquire import Source
from ..denoiser import PartialDenoiser
from ..evaluate.classical import fitting
from ..evaluate.comparison import ROWS, all_pictures, reconstructions, write_compared
from ..evaluate.records import remark_of_training, score, summary, write_measured, write_scores
from ..output.figures import write_samples
from ..output.files import write_array
from ..output.run_folder import (
    CHECKPOINTS,
    COMPARISON,
    METRICS,
    SAMPLES,
    are_there,
    check_folder,
    file_names,
    new_results,
)
from ..sample.draw import posterior_samples, prior_samples
from ..sample.observe import coil_maps, observe
from ..system.console import note, progress, say, table, warn
from ..system.lock import alone
from ..system.processes import arithmetic, cost_of, processes
from .fill import run_filling
from .inputs import seen_in_training, test_items
from .kept import kept_parts
from .raw import run_raw
from .weights import on_its_masks, trained_denoiser


def run_sampling(config: Config, config_file: Path, *, force: bool = False) -> None:
    """Generate, or solve the inverse problem of the config, into its run folder.

    Args:
        config: the settings.
        config_file: for what is said to the user.
        force: whether finished samples of other settings, and files of others, are replaced.
    """
    check_folder(config.setting.save_dir, CHECKPOINTS, force=force)
    with alone(config.setting.save_dir, folder=True):
        _sample(config, config_file, force)


def _sample(config: Config, config_file: Path, force: bool) -> None:
    denoiser = trained_denoiser(config, config_file)
    asked = config.sample
    config = on_its_masks(config, denoiser)
    if (steps := config.sample.steps) != asked.steps:
        said = f"{steps} steps of one mask take the place of {asked.steps} of {asked.draws}"
        note(f"{config.setting.pretrained_model_dir}: takes full measurements; {said}")
    run = run_generation if config.inverse_problem is None else run_reconstruction
    if config.data.kind == "raw":
        run = run_raw
    elif config.inverse_problem is not None and config.inverse_problem.operator == "missing":
        run = run_filling
    with arithmetic(config.sample.mixed_precision):
        run(config, denoiser, force=force)


def run_generation(config: Config, denoiser: PartialDenoiser, *, force: bool = False) -> None:
    """Generate sample.count images into the run folder; MRI takes its coil maps from the test data."""
    settings, folder = config.sample, config.setting.save_dir
    maps = coil_maps(test_items(config)) if config.data.is_mri else None
    parts = kept_parts(config, denoiser, [], [] if maps is None else [maps])
    if are_there(folder, parts.identity, force=force):
        return
    total, cost = settings.count * settings.steps, cost_of(settings.batch_size)
    with progress("generating", total, shared=True, cost=cost) as advance:
        images = prior_samples(denoiser, config.data, settings, maps, advance, parts.keep)
    if not processes().is_main_process:
        return
    with new_results(config, folder, parts.identity, force=force) as filled:
        write_samples(filled, images, [f"sample_{n:05d}" for n in range(settings.count)])
    parts.remove()
    say(f"{folder}: {len(images)} images, grid.png, images.npy")


def run_reconstruction(config: Config, denoiser: PartialDenoiser, *, force: bool = False) -> None:
    """Solve the inverse problem on test images; metrics.csv has a line for each image, method and convention."""
    items, settings, folder = test_items(config), config.sample, config.setting.save_dir
    names = [item.name for item in items]
    for line in remark_of_training(names, seen_in_training(config)):
        warn(line)
    parts = kept_parts(config, denoiser, names, [t for item in items for t in (item.image, item.maps) if t is not None])
    if are_there(folder, parts.identity, force=force):
        return
    total, cost = len(items) * settings.samples * settings.steps, cost_of(settings.batch_size)
    with progress("reconstructing", total, shared=True, cost=cost) as advance:
        inputs, samples = posterior_samples(denoiser, items, config, advance, parts.keep)
    if not processes().is_main_process:
        return
    names = file_names(names)
    truth, mean = torch.stack([item.image for item in items]), samples.mean(1)
    records = score("input", "input", inputs, truth, names) + score("mean", "msm", mean, truth, names)
    if settings.samples > 1:
        records += score("sample", "msm_one_sample", samples[:, 0], truth, names)
    with new_results(config, folder, parts.identity, force=force) as filled:
        write_samples(filled, mean, names)
        write_array(filled / SAMPLES, samples)
        write_measured(filled, items, inputs)
        write_scores(filled / METRICS, records)
        path, device = filled / COMPARISON, denoiser.schedule.device
        _compare(path, config, items[:ROWS], inputs[:ROWS], samples[:ROWS], names[:ROWS], device)
    parts.remove()
    called = {"input": "zero-filled" if config.data.is_mri else "input", "msm_one_sample": "MSM, one sample"}
    called["msm"] = f"MSM, mean of {settings.samples}" if settings.samples > 1 else "MSM, one sample"
    table(f"{folder}: mean over {len(items)} images, convention plain", summary(records, called))


def _compare(
    path: Path,
    config: Config,
    items: Sequence[Source],
    inputs: Tensor,
    samples: Tensor,
    names: Sequence[str],
    device: torch.device,
) -> None:
    """Draw the first images beside what classical methods at fixed settings make of the same measurements."""
    assert config.inverse_problem is not None
    folder = config.setting.save_dir
    seen = observe(items, config.inverse_problem, config.data, seed=config.sample.seed, device=device)
    methods, truth = fitting(seen), torch.stack([item.image for item in items])
    with progress("classical methods", len(methods)) as advance:
        classical = {}
        for name, method in methods.items():
            classical[name] = method.run(seen, method.usual).cpu()
            advance(1)
    made = reconstructions(inputs, classical, samples)
    records = [r for method, (kind, x) in made.items() for r in score(kind, method, x, truth, names)]
    title = f"{folder.name}; classical methods at fixed settings" if classical else folder.name
    write_compared(path, title, names, all_pictures(made, truth, samples), records)
