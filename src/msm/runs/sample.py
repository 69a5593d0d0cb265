"""Runs that sample: from a config and a denoiser to the files of a run folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from .config import Config, dump_config
from .data.images import SUFFIXES
from .data.store import MeasurementStore, obstacle
from .denoiser import PartialDenoiser
from .evaluation import coil_maps, make_masks, posterior_samples, prior_samples, score, summary
from .inputs import seen_in_training, test_items
from .parts import Parts, fingerprint
from .processes import processes
from .raw_commands import reconstruct_raw
from .records import forget_samples, remark_of_training, write_measured
from .report import (
    Column,
    error_map,
    print_table,
    spread,
    write_array,
    write_comparison,
    write_csv,
    write_picture,
    write_samples,
    write_text,
)
from .sampling import generate


def check_folder(folder: Path, other: str) -> None:
    """Refuse a run folder, before any work, that cannot be written to, or holds a run of another kind.

    Args:
        folder: setting.save_dir.
        other: what such a run has in its folder.

    Raises:
        ValueError: with what to do.
    """
    if (folder / other).exists():
        raise ValueError(f"setting.save_dir: {folder} holds another kind of run ({other}); choose another folder")
    if reason := obstacle(folder):
        raise ValueError(f"setting.save_dir: {folder}: cannot be written to ({reason}); choose another folder")


def run_generation(config: Config, denoiser: PartialDenoiser) -> None:
    """Generate sample.count images into the run folder; MRI takes its coil maps from the test data."""
    settings = config.sample
    maps = coil_maps(test_items(config)) if config.data.is_mri else None
    parts = kept_parts(config, denoiser, [], [] if maps is None else [maps])
    with progress_bar("generating", settings.count * settings.steps) as advance:
        images = prior_samples(denoiser, config.data, settings, maps, advance, parts.keep)
    if not processes().is_main_process:
        return
    forget_samples(config.setting.save_dir)
    record_run(config, config.setting.save_dir)
    write_samples(config.setting.save_dir, images, [f"sample_{n:05d}" for n in range(settings.count)])
    parts.remove()
    print(f"{config.setting.save_dir}: {len(images)} images, grid.png, images.npy")


def run_reconstruction(config: Config, denoiser: PartialDenoiser) -> None:
    """Solve the inverse problem on test images; metrics.csv has a line for each image, method and convention."""
    items, settings, folder = test_items(config), config.sample, config.setting.save_dir
    names = [item.name for item in items]
    if processes().is_main_process:
        for line in remark_of_training(names, seen_in_training(config)):
            print(f"msm: warning: {line}", file=sys.stderr)
    parts = kept_parts(config, denoiser, names, [t for item in items for t in (item.image, item.maps) if t is not None])
    with progress_bar("reconstructing", len(items) * settings.samples * settings.steps) as advance:
        inputs, samples = posterior_samples(denoiser, items, config, advance, parts.keep)
    if not processes().is_main_process:
        return
    forget_samples(folder)
    record_run(config, folder)
    names = file_names(names)
    truth, mean = torch.stack([item.image for item in items]), samples.mean(1)
    rows = score("input", inputs, truth, names) + score("msm", mean, truth, names)
    write_samples(folder, mean, names)
    columns = [Column("input", inputs), Column("MSM", mean), Column("truth", truth)]
    columns.append(Column("error", error_map(mean, truth), is_map=True))
    write_array(folder / "samples.npy", samples)
    write_measured(folder, items, inputs)
    if settings.samples > 1:
        rows += score("msm_one_sample", samples[:, 0], truth, names)
        columns.append(Column("std. deviation", spread(samples), is_map=True))
    shown = [Column(c.title, c.images[:8], is_map=c.is_map) for c in columns]
    write_comparison(folder / "compare.png", config.setting.save_dir.name, names[:8], shown)
    write_csv(folder / "metrics.csv", rows)
    parts.remove()
    print_table(f"{folder}: mean over {len(items)} images, convention plain", summary(rows))


def run_raw(config: Config, denoiser: PartialDenoiser) -> None:
    """Reconstruct raw files: mean and standard deviation of each slice."""
    reconstruct_raw(config, denoiser, progress_bar, lambda: record_run(config, config.setting.save_dir))


def file_names(names: Sequence[str]) -> list[str]:
    """What the files of items are called: no folders, not what image files end in, numbered if two were the same."""
    plain = [name[: -len(end)] if (end := Path(name).suffix).lower() in SUFFIXES else name for name in names]
    plain = [re.sub(r"[/:\\]", "_", name) for name in plain]
    return plain if len(set(plain)) == len(plain) else [f"{name}_{n}" for n, name in enumerate(plain)]


def kept_parts(config: Config, denoiser: PartialDenoiser, names: Sequence[str], data: Sequence[Tensor]) -> Parts:
    """The batches of samples that a stopped run of the same settings, weights and data left in the run folder.

    Masks and noise of items follow from their names.
    """
    weights = denoiser.state_dict().values()
    device = next(denoiser.parameters()).device
    texts = [dump_config(config), json.dumps(versions()), device.type, *names]
    return Parts(config.setting.save_dir, fingerprint(texts, [*weights, *data]))


def sample_grid(config: Config, denoiser: PartialDenoiser, store: MeasurementStore, path: Path) -> None:
    """A few images generated during training, with the coil maps of the store's first item."""
    device = next(denoiser.parameters()).device
    first = store.batch([0]).to(device)
    transform = first.transform
    masks = make_masks(config.data.mask, store.shape[-2:])
    z = generate(denoiser, transform, masks, store.shape, seeds=range(4), steps=25, draws=2)
    write_picture(path, transform.adjoint(z))


def record_run(config: Config, folder: Path) -> None:
    """Write the resolved config, the versions and the command into a run folder."""
    record: dict[str, Any] = {**versions(), "command": f"msm {shlex.join(sys.argv[1:])}"}
    if config.train.remask:
        record["remask"] = True  # trained on masks redrawn from clean images
    write_text(folder / "config.yaml", dump_config(config))
    write_text(folder / "versions.json", json.dumps(record, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results follow from."""
    packages = ("msm-diffusion", "torch", "diffusers", "accelerate")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left; gives the function that moves it on. Of several processes one shows it."""
    state = processes()
    total = -(-total // state.num_processes)
    with Progress(disable=not state.is_main_process) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)
