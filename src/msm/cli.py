"""The command `msm`: the only file that puts parts together.

Heavy libraries are imported inside the commands, so that `msm --help` answers at once.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from .config import Config, DataConfig, MaskConfig
    from .data.acquire import Source
    from .data.store import MeasurementStore
    from .denoiser import PartialDenoiser
    from .masks import Masks

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Diffusion models trained on noisy, subsampled measurements only.",
)
ConfigFile = Annotated[Path, typer.Argument(help="YAML file, for example one of configs/", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="settings to change, as block.key=value", show_default=False)
]

DENOISER_FILE = "denoiser.json"  # next to the weights: what the network predicts


@app.command()
def acquire(
    config_file: ConfigFile,
    store: Annotated[Path, typer.Option("--output", "-o", help="measurement store to write (.h5)")],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train or test")] = "train",
    truth: Annotated[Path | None, typer.Option(help="also write the ground truth, to this file")] = None,
) -> None:
    """Simulate acquisitions of the images in setting.dataset_dir: one mask, one noise draw each, for ever.

    Example: msm acquire configs/demo/brain.yaml -o stores/brain.h5 setting.dataset_dir=SLICES
    """
    from .config import load_config

    config = load_config(config_file, overrides or [])
    count = write_store(config, split, store, truth)
    print(f"{store}: {count} acquisitions")


@app.command()
def train(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Train on measurements. The same command again goes on from the newest checkpoint.

    setting.dataset_dir is a store written by `msm acquire`, or a folder of images, which is then measured once
    into setting.save_dir.

    Example: msm train configs/demo/brain.yaml setting.dataset_dir=stores/brain.h5
    """
    from .config import load_config

    config = load_config(config_file, overrides or [])
    if config.data.noise_std > 0:
        raise ValueError(
            f"{config_file}: data.noise_std: found {config.data.noise_std}; training from noisy measurements "
            "is not available in this version, set it to 0"
        )
    if config.train.remask:
        raise ValueError(
            f"{config_file}: train.remask: found true; this version trains on fixed acquisitions only, set it to false"
        )
    from .training import Trainer

    folder = config.setting.save_dir
    store = open_store(config, folder)
    if store.shape[-1] != config.data.image_size or store.is_mri != config.data.is_mri:
        raise ValueError(
            f"{store.path}: holds {'MRI' if store.is_mri else 'images'} of shape {store.shape}; the config's data "
            f"block says {config.data.kind} of {config.data.image_size} px, use the config it was made with"
        )
    if store.largest_noise_std > 0:
        raise ValueError(
            f"{store.path}: noise_std: found {store.largest_noise_std:g}; training from noisy measurements is not "
            "available in this version, acquire with data.noise_std=0"
        )
    denoiser = new_denoiser(config)
    record_run(config, folder)

    def on_checkpoint(images: int) -> None:
        record = {"parametrisation": config.diffusion.parametrisation}
        write_text(folder / "weights" / DENOISER_FILE, json.dumps(record) + "\n")
        sample_grid(config, denoiser, store, folder / "images" / f"{images:09d}.png")

    trainer = Trainer(
        denoiser,
        store,
        make_masks(config.data.mask, config.data.image_size),
        folder,
        config.train,
        train_steps=config.diffusion.train_steps,
        on_checkpoint=on_checkpoint,
    )
    trainer.run()
    print(f"{folder / 'weights'}: averaged weights")


@app.command()
def sample(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Generate images, or solve the inverse problem that the config describes.

    Writes PNGs, a grid and the raw arrays to setting.save_dir and, where the truth is known, metrics.csv.

    Example: msm sample configs/inverseproblem/ffhq_BOX_msm_p04_img128_EPS.yaml setting.dataset_dir=PHOTOS
    """
    import torch

    from .config import load_config

    config = load_config(config_file, overrides or [])
    denoiser = trained_denoiser(config, config_file)
    record_run(config, config.setting.save_dir)
    run = run_generation if config.inverse_problem is None else run_reconstruction
    precision = config.sample.mixed_precision
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    with torch.autocast(next(denoiser.parameters()).device.type, low, enabled=precision != "no"):
        run(config, denoiser)


@app.command("import-weights")
def import_weights(
    file: Annotated[Path, typer.Argument(help="published state dict, .pt or .safetensors")],
    folder: Annotated[Path, typer.Argument(help="folder to write")],
    config_file: Annotated[Path, typer.Option("--config", help="config whose network block it fits")],
) -> None:
    """Turn a published state dict into a safetensors folder; nothing in the file is executed.

    Example: msm import-weights ffhq_msm_p04_noise0_0_img128.pt weights/ffhq
    --config configs/generation/ffhq_msm_p04_noise0_0_img128.yaml
    """
    from .config import load_config
    from .network import load_published_weights

    settings = load_config(config_file).network.model_dump()
    load_published_weights(file, **settings).save(folder)
    print(f"{folder}: config.json and model.safetensors")


def make_masks(mask: MaskConfig, size: int) -> Masks:
    """The mask family that a config describes."""
    from .config import BoxMaskConfig
    from .masks import BoxMasks, CartesianMasks

    if isinstance(mask, BoxMaskConfig):
        return BoxMasks(size, mask.drop, mask.grid)
    return CartesianMasks(size, mask.acceleration, mask.center, mask.pattern)


def sources(data: DataConfig, folder: Path, split: str) -> Iterator[Source]:
    """The items of a data folder, as data.kind says."""
    from itertools import islice
    from typing import cast

    from .data.fastmri import scans
    from .data.images import Split, photos, slices
    from .data.store import DataError

    if split not in ("train", "test"):
        raise DataError(f"--split: found {split!r}; it should be train or test")
    part = cast(Split, split)
    if data.kind == "images":
        items = photos(folder, part, data.held_out, data.image_size, data.channels)
    elif data.kind == "slices":
        items = slices(folder, part, data.held_out, data.image_size, data.coils, data.seed)
    else:
        items = scans(folder, part, data.image_size)
    return islice(items, data.limit)


def write_store(config: Config, split: str, path: Path, truth: Path | None) -> int:
    """Measure every item of a data folder once; returns how many there were."""
    from contextlib import ExitStack

    from rich.progress import track

    from .data.acquire import acquire as measure
    from .data.store import DataError, StoreWriter, TruthWriter

    data, folder = config.data, config.setting.dataset_dir
    if folder is None:
        raise DataError("setting.dataset_dir: missing; set it to the folder with the images")
    masks = make_masks(data.mask, data.image_size)
    provenance = {"source": folder.name, "split": split, "data": data.model_dump(mode="json")}
    count = 0
    with ExitStack() as stack:
        store = stack.enter_context(StoreWriter(path, provenance))
        images = stack.enter_context(TruthWriter(truth, provenance)) if truth else None
        for item in track(sources(data, folder, split), "measuring", total=None):
            m = measure(item, masks, data.noise_std, data.seed)
            store.add(item.name, m.values[0], m.mask[0], item.maps, data.noise_std)
            if images is not None:
                images.add(item.name, item.image)
            count += 1
        if not count:
            raise DataError(f"{folder}: no items for the {split} split; correct setting.dataset_dir")
    return count


def open_store(config: Config, folder: Path) -> MeasurementStore:
    """The store to train on; a data folder is measured once, into the run folder."""
    from .data.store import MeasurementStore

    path = config.setting.dataset_dir
    if path is not None and path.suffix == ".h5":
        return MeasurementStore(path)
    measured = folder / "measurements.h5"
    if not measured.exists():
        write_store(config, "train", measured, None)
    store = MeasurementStore(measured)
    if store.provenance.get("data") != config.data.model_dump(mode="json"):
        raise ValueError(
            f"{measured}: was measured with another `data` block than the config's; use another setting.save_dir, "
            "or the config that the run was started with"
        )
    return store


def new_denoiser(config: Config) -> PartialDenoiser:
    """An untrained denoiser with seeded weights, or one that starts from setting.pretrained_model_dir."""
    import torch

    from .denoiser import PartialDenoiser
    from .network import ADMNetwork
    from .schedule import VPSchedule

    torch.manual_seed(config.train.seed)
    start = config.setting.pretrained_model_dir
    network = ADMNetwork(**config.network.model_dump()) if start is None else load_network(config, start)
    return PartialDenoiser(network, VPSchedule(), config.diffusion.parametrisation)


def trained_denoiser(config: Config, config_file: Path) -> PartialDenoiser:
    """The denoiser of a trained run, on the device that is there."""
    import torch

    if config.setting.pretrained_model_dir is None:
        raise ValueError(
            f"{config_file}: setting.pretrained_model_dir: missing; set it to the weights folder of a training run"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return new_denoiser(config).to(device).eval()


def load_network(config: Config, path: Path) -> Any:
    """A network from a weights folder or a published file; it must fit the config."""
    from .network import ADMNetwork, load_published_weights

    if path.suffix in (".pt", ".safetensors"):
        return load_published_weights(path, **config.network.model_dump())
    network = ADMNetwork.load(path)
    record = path / DENOISER_FILE
    trained = json.loads(record.read_text())["parametrisation"] if record.exists() else "epsilon"
    if trained != config.diffusion.parametrisation:
        raise ValueError(
            f"{path}: was trained with diffusion.parametrisation = {trained}, the config says "
            f"{config.diffusion.parametrisation}; use the config it was trained with"
        )
    for key, value in config.network.model_dump(mode="json").items():
        if network.settings[key] != value:
            raise ValueError(
                f"{path}: a network with {key} = {network.settings[key]}, the config says network.{key} = {value}; "
                "use the config it was trained with"
            )
    return network


def record_run(config: Config, folder: Path) -> None:
    """Write the resolved config and the versions into a run folder."""
    from importlib.metadata import version

    from .config import dump_config

    packages = ("msm-diffusion", "torch", "diffusers", "accelerate")
    versions = {"python": sys.version.split()[0], **{name: version(name) for name in packages}}
    write_text(folder / "config.yaml", dump_config(config))
    write_text(folder / "versions.json", json.dumps(versions, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def sample_grid(config: Config, denoiser: PartialDenoiser, store: MeasurementStore, path: Path) -> None:
    """A few images generated during training, with the coil maps of the store's first item."""
    from .sampling import generate

    device = next(denoiser.parameters()).device
    first = store.batch([0]).to(device)
    transform = first.transform
    masks = make_masks(config.data.mask, config.data.image_size)
    z = generate(denoiser, transform, masks, store.shape, seeds=range(4), steps=25, draws=2)
    save_png(image_grid(transform.adjoint(z)), path)


def run_generation(config: Config, denoiser: PartialDenoiser) -> None:
    """Generate sample.count images into the run folder; MRI takes its coil maps from the test data."""
    import torch
    from rich.progress import Progress

    from .sampling import generate
    from .transforms import Identity, MultiCoil, Transform

    settings, data = config.sample, config.data
    device = next(denoiser.parameters()).device
    masks = make_masks(data.mask, data.image_size)
    maps = coil_maps(test_items(config)).to(device) if data.is_mri else None
    images = []
    with Progress() as progress:
        bar = progress.add_task("generating", total=settings.count * settings.steps)
        for numbers in batches(settings.count, settings.batch_size):
            transform: Transform = Identity()
            channels: int = data.channels
            if maps is not None:
                chosen = maps[[n % len(maps) for n in numbers]]
                transform, channels = MultiCoil(chosen), chosen.shape[1]
            z = generate(
                denoiser,
                transform,
                masks,
                (channels, data.image_size, data.image_size),
                seeds=[settings.seed + n for n in numbers],
                steps=settings.steps,
                draws=settings.draws,
                eta=settings.eta,
                covering=settings.masks == "covering",
                callback=lambda *_, n=len(numbers): progress.advance(bar, n),
            )
            images.append(transform.adjoint(z).cpu())
    save_samples(torch.cat(images), [f"sample_{n:05d}" for n in range(settings.count)], config.setting.save_dir)


def run_reconstruction(config: Config, denoiser: PartialDenoiser) -> None:
    """Solve the inverse problem on test images; metrics.csv has one line an image."""
    import torch
    from rich.progress import Progress

    from .metrics import image_metrics
    from .sampling import reconstruct

    problem, settings, data = config.inverse_problem, config.sample, config.data
    assert problem is not None
    masks = make_masks(data.mask, data.image_size)
    items = test_items(config)
    means, inputs, rows = [], [], []
    with Progress() as progress:
        bar = progress.add_task("reconstructing", total=len(items) * settings.samples * settings.steps)
        for numbers in batches(len(items), max(1, settings.batch_size // settings.samples)):
            chosen = [items[n] for n in numbers]
            y, operator, transform = observe(config, chosen, next(denoiser.parameters()).device)
            z = reconstruct(
                denoiser,
                y,
                operator,
                transform,
                masks,
                tuple(operator.A_dagger(y).shape[1:]),
                seeds=[settings.seed + n * settings.samples + k for n in numbers for k in range(settings.samples)],
                steps=settings.steps,
                draws=settings.draws,
                eta=settings.eta,
                step_size=problem.step_size,
                covering=settings.masks == "covering",
                callback=lambda *_, n=len(y): progress.advance(bar, n),
            )
            drawn = transform.adjoint(z).cpu().unflatten(0, (len(chosen), settings.samples))
            means.append(drawn.mean(1))
            inputs.append(transform.adjoint(operator.A_dagger(y)).cpu()[:: settings.samples])
    names = [Path(item.name).with_suffix("").as_posix().replace("/", "_").replace(":", "_") for item in items]
    truth = torch.stack([item.image for item in items])
    reconstructed = torch.cat(means)
    for label, images in (("input", torch.cat(inputs)), ("msm", reconstructed)):
        for convention in ("plain", "published"):
            scores = image_metrics(images, truth, convention=convention)  # type: ignore[arg-type]
            for i, name in enumerate(names):
                rows.append({"image": name, "method": label, "convention": convention})
                rows[-1] |= {key: f"{values[i]:.4f}" for key, values in scores.items()}
    folder = config.setting.save_dir
    save_samples(reconstructed, names, folder)
    save_png(
        image_grid(torch.cat([torch.cat(inputs), reconstructed, truth]), columns=len(items)),
        folder / "compare.png",
    )
    write_csv(folder / "metrics.csv", rows)
    for label in ("input", "msm"):
        psnr = [float(r["psnr"]) for r in rows if r["method"] == label and r["convention"] == "plain"]
        print(f"{label}: {sum(psnr) / len(psnr):.2f} dB (plain PSNR, mean of {len(psnr)} images)")


def test_items(config: Config) -> list[Source]:
    """The first sample.count items of the test split."""
    from itertools import islice

    from .data.store import DataError

    folder = config.setting.dataset_dir
    if folder is None:
        raise DataError("setting.dataset_dir: missing; set it to the folder with the test images")
    items = list(islice(sources(config.data, folder, "test"), config.sample.count))
    if not items:
        raise DataError(f"{folder}: no items in the test split; correct setting.dataset_dir")
    return items


def coil_maps(items: list[Source]) -> Tensor:
    """Coil maps (B, coils, H, W) of MRI items."""
    import torch

    return torch.stack([item.maps for item in items if item.maps is not None])


def observe(config: Config, items: list[Source], device: Any) -> tuple[Tensor, Any, Any]:
    """Y = H z + e of some items, each repeated sample.samples times, with H and T."""
    import torch

    from .data.acquire import item_generator
    from .losses import standard_normal
    from .operators import Undersampling, build
    from .transforms import Identity, MultiCoil, Transform

    problem, data = config.inverse_problem, config.data
    assert problem is not None
    repeats = config.sample.samples
    streams = [item_generator(item.name + ":test", config.sample.seed) for item in items]
    images = torch.stack([item.image for item in items])
    transform: Transform = Identity()
    if problem.mask is not None:
        maps = coil_maps(items)
        z = MultiCoil(maps).forward(images)
        family = make_masks(problem.mask, data.image_size)
        mask = torch.cat([family.sample(1, stream) for stream in streams])
        operator: Any = Undersampling(mask.repeat_interleave(repeats, 0))
        transform = MultiCoil(maps.repeat_interleave(repeats, 0).to(device))
        y = Undersampling(mask).A(z)
    else:
        names = {"hole": "hole", "keep": "kept", "factor": "factor"}
        names |= {"blur_sigma": "sigma", "blur_length": "length", "blur_angle": "angle"}
        given = {new: getattr(problem, old) for old, new in names.items() if getattr(problem, old) is not None}
        generator = torch.Generator().manual_seed(config.sample.seed)
        operator = build(problem.operator, (data.channels, data.image_size, data.image_size), generator, **given)
        y = operator.A(images)
    noise = torch.stack([standard_normal(item, stream) for item, stream in zip(y, streams)])
    y = (y + problem.noise_std * noise).repeat_interleave(repeats, 0).to(device)
    operator = operator.to(device)
    if problem.mask is not None:
        y = operator.A(y)  # no noise where nothing is measured
    return y, operator, transform


def batches(total: int, size: int) -> Iterator[range]:
    """Numbers 0 … total − 1 in groups."""
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def save_samples(images: Tensor, names: list[str], folder: Path) -> None:
    """Write images (B, C, H, W) as PNGs, as one grid, and as an array."""
    import numpy as np

    for name, image in zip(names, images):
        save_png(image_grid(image[None]), folder / "images" / f"{name}.png")
    save_png(image_grid(images), folder / "grid.png")
    temporary = folder / "images.tmp.npy"
    np.save(temporary, images.numpy())
    os.replace(temporary, folder / "images.npy")
    print(f"{folder}: {len(images)} images, grid.png, images.npy")


def image_grid(images: Tensor, columns: int = 8) -> Tensor:
    """One picture (3 or 1, H, W) in [0, 1] of images (B, C, H, W), real in [-1, 1] or complex."""
    from torchvision.utils import make_grid

    shown = images.abs() if images.is_complex() else (images + 1) / 2
    return make_grid(shown.cpu().clamp(0, 1), nrow=columns, padding=0 if len(images) == 1 else 2)


def save_png(picture: Tensor, path: Path) -> None:
    """Write a picture (C, H, W) in [0, 1] under a temporary name and move it into place."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.png")
    save_image(picture, temporary)
    os.replace(temporary, path)


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows of one kind as CSV."""
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def main() -> None:
    """Run the command; a mistake the user can mend ends in one line and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(args=arguments)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"msm: {' '.join(str(error).split())} (--debug shows where)", file=sys.stderr)
        raise SystemExit(2) from None
