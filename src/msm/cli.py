"""The command `msm`: the only file that puts parts together.

Heavy libraries are imported inside the commands, so that `msm --help` answers at once.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .memory import keep_memory
from .stopping import EXIT_CODE

if TYPE_CHECKING:
    from torch import Tensor

    from .config import Config
    from .data.acquire import Source
    from .data.store import Acquisitions, MeasurementStore
    from .denoiser import PartialDenoiser
    from .parts import Parts
    from .settings import DataConfig

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
DENOISER_SETTINGS = {"parametrisation", "phase_width", "phase_residual", "sense_iterations"}  # of the diffusion block
NOISE_FILE = "noise.jsonl"  # in the run folder: the estimates of train.noise_std


@app.command()
def acquire(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG.yaml [KEY=VALUE]... | RAW...",
            help="to simulate: a .yaml file and settings to change; to import: raw files, or folders of them",
            show_default=False,
        ),
    ],
    store: Annotated[Path, typer.Option("--output", "-o", help="measurement store to write (.h5)")],
    split: Annotated[str, typer.Option(help="to simulate: train or test")] = "train",
    truth: Annotated[Path | None, typer.Option(help="to simulate: also write the ground truth, to this file")] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="to import: height and width of all items; not given: the largest that pads none"),
    ] = None,
    coils: Annotated[int | None, typer.Option(min=1, help="to import: compress to so many coils")] = None,
    workers: Annotated[int, typer.Option(min=1, help="to import: files at a time, of some 0.9 GB each")] = 1,
) -> None:
    """Write a measurement store: simulate acquisitions of images, or import raw k-space.

    The first argument decides. A .yaml file: the images in its setting.dataset_dir are measured, one mask, one noise
    draw each, for ever. Anything else is raw k-space (fastMRI and ISMRMRD .h5, .mrd; .npy, .mat, .cfl): every slice
    gets coil maps and a noise level, and STORE.manifest.jsonl says what each file gave. The same command again goes on.

    Example: msm acquire configs/demo/brain.yaml -o stores/brain.h5 setting.dataset_dir=SLICES

    Example: msm acquire scans/*.h5 -o stores/brain.h5 --size 256 256 --workers 4
    """
    if Path(inputs[0]).suffix.lower() not in (".yaml", ".yml"):
        if truth is not None or split != "train":
            raise ValueError(
                "--split and --truth are for a CONFIG.yaml; raw files have no ground truth, leave both out"
            )
        from .raw_commands import import_raw

        import_raw([Path(name) for name in inputs], store, size, coils, workers)
        return
    from .config import load_config

    if size is not None or coils is not None or workers != 1:
        raise ValueError("--size, --coils and --workers are for raw files; CONFIG.yaml has settings for these")
    count = write_store(load_config(inputs[0], inputs[1:]), split, store, truth)
    print(f"{store}: {count} acquisitions")


@app.command()
def train(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Train on measurements. The same command again goes on from the newest checkpoint.

    setting.dataset_dir is a store written by `msm acquire`, or a folder of images, which is then measured once
    into setting.save_dir.

    Example: msm train configs/demo/brain.yaml setting.dataset_dir=stores/brain.h5
    """
    from .config import load_config
    from .evaluation import make_masks
    from .processes import processes
    from .report import write_text
    from .training import Trainer

    config = load_config(config_file, overrides or [])
    folder = config.setting.save_dir
    denoiser = new_denoiser(config)
    with processes().main_process_first():  # the others find the store written
        store, data = training_data(config, folder)

    def on_start() -> None:
        record_run(config, folder)
        record = config.diffusion.model_dump(include=DENOISER_SETTINGS) | {"remask": config.train.remask}
        write_text(folder / "weights" / DENOISER_FILE, json.dumps(record) + "\n")

    def on_checkpoint(images: int) -> None:
        sample_grid(config, denoiser, store, folder / "images" / f"{images:09d}.png")

    trainer = Trainer(
        denoiser,
        data,
        make_masks(config.data.mask, store.shape[-2:]),
        folder,
        config.train,
        train_steps=config.diffusion.train_steps,
        on_start=on_start,
        on_checkpoint=on_checkpoint,
    )
    if not trainer.run():
        processes().print(f"{folder}: stopped by SIGTERM with a checkpoint; the same command goes on from there")
        raise SystemExit(EXIT_CODE)
    processes().print(f"{folder / 'weights'}: averaged weights")


@app.command()
def sample(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Generate images, or solve the inverse problem that the config describes.

    Writes PNGs, a grid and the raw arrays to setting.save_dir and, where the truth is known, metrics.csv.

    With data.kind=raw, setting.dataset_dir is a file of raw k-space (fastMRI, ISMRMRD, BART, NumPy, MATLAB) or a folder
    of them. Each slice is reconstructed from what the scanner measured: mean and standard deviation over
    sample.samples posterior samples, as HDF5, NIfTI and PNG for each volume. The same command again goes on.

    sample.score=chain corrects a bias of averaging over masks; it needs a network trained on sub-masks too, with
    train.submask_share above 0 and train.submask_keep from 0.4 or less (boxes at drop 0.4; MRI: near 0).

    sample.preset=best takes the settings that measured best at a tenth of the network calls, paper and published those
    of the paper and of its authors' code; settings after it change it, sample.steps=100 for instance.

    Example: msm sample configs/inverseproblem/ffhq_BOX_msm_p04_img128_EPS.yaml setting.dataset_dir=PHOTOS

    Example: msm sample runs/brain/config.yaml data.kind=raw setting.dataset_dir=scan.mrd
    setting.pretrained_model_dir=runs/brain/weights setting.save_dir=runs/scan
    """
    from .config import load_config
    from .processes import arithmetic

    config = load_config(config_file, overrides or [])
    denoiser = trained_denoiser(config, config_file)
    run = run_generation if config.inverse_problem is None else run_reconstruction
    if config.data.kind == "raw":
        run = run_raw
    with arithmetic(config.sample.mixed_precision):
        run(config, denoiser)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="folder that `msm sample` wrote", show_default=False)],
    store: Annotated[
        Path | None,
        typer.Option(help="generated images: the store trained on; not given: looked for beside the weights"),
    ] = None,
) -> None:
    """Judge the samples of a run: one record an image and method, in records.jsonl.

    Reconstructions: PSNR, SSIM and NMSE in both conventions, LPIPS if its weights are on this machine, the residual
    against the noise, coverage, and classical methods on the same measurements, tuned on other test images.
    Generated images: Fréchet distance from held-out images, and the nearest training measurement of each.

    Example: msm evaluate runs/box
    """
    from itertools import islice

    from .judge import HELD_OUT, evaluate_generation, evaluate_reconstruction
    from .records import run_config

    config = run_config(run)
    if config.data.kind == "raw":
        raise ValueError(f"{run}: a run on raw scans has no truth to be compared with; there is nothing to evaluate")
    if config.inverse_problem is not None:
        if store is not None:
            raise ValueError(f"--store: is for generated images; {run} holds reconstructions, leave it out")
        records = evaluate_reconstruction(
            run, config, other_items(config, config.sample.count), versions(), progress_bar
        )
    else:
        real = list(islice(other_items(config, 0), HELD_OUT))
        records = evaluate_generation(run, config, real, trained_on(config, store), versions(), progress_bar)
    print(f"{run}: {len(records)} lines in records.jsonl; a page of it: msm report {run}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="evaluated runs, and training runs for their loss")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write; not given: report.html in the first run")
    ] = None,
) -> None:
    """Write one self-contained HTML page of evaluated runs.

    Several runs of the same measurements, with other steps or draws, give the curve of quality against network calls.

    Example: msm report runs/box15 runs/box50 -o box.html
    """
    from .page import write_page

    path = output or runs[0] / "report.html"
    write_page(path, runs, f"msm {shlex.join(sys.argv[1:])}", versions())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


@app.command()
def demo(output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")] = Path("runs/demo")) -> None:
    """Show the main job on bundled data with bundled weights: a few minutes on two cores.

    Reconstructs brain slices from undersampled k-space (R = 4, 6, 8), fills and enlarges a portrait, and generates
    new brains and faces. Both networks have never seen a clean image. Writes figures and tables.
    """
    from .config import load_config
    from .demo import brain, faces
    from .processes import arithmetic

    assets = Path(__file__).parent / "assets"
    for name, show in (("brain", brain), ("faces", faces)):
        weights = assets / name
        config = load_config(weights / "config.yaml", [f"setting.pretrained_model_dir={weights}"])
        denoiser = trained_denoiser(config, weights / "config.yaml")
        with arithmetic(config.sample.mixed_precision):
            show(denoiser, config, output, progress_bar)
    pictures = ", ".join(sorted(path.name for path in output.glob("*.png")))
    print(f"{output}: {pictures}; scores in brain.csv and faces.csv")


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
    elif data.kind == "raw":
        raise DataError(f"{folder}: raw files are imported by `msm acquire FILE... -o STORE.h5`; use that store")
    elif data.kind == "slices":
        items = slices(folder, part, data.held_out, data.image_size, data.coils, data.seed, data.phase_detail)
    else:
        items = scans(folder, part, data.image_size)
    return islice(items, data.limit)


def write_store(config: Config, split: str, path: Path, truth: Path | None) -> int:
    """Measure every item of a data folder once; returns how many there were."""
    from contextlib import ExitStack

    from rich.progress import track

    from .data.acquire import acquire as measure
    from .data.store import DataError, StoreWriter, TruthWriter
    from .evaluation import make_masks

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
    """The store to train on; a data folder is measured once, into the run folder, a store is read through once."""
    from rich.progress import track

    from .data.store import MeasurementStore

    path = config.setting.dataset_dir
    if path is not None and path.suffix == ".h5":
        store = MeasurementStore(path)
        for i in track(range(len(store)), "checking") if not (folder / "checkpoints").exists() else ():
            store.batch([i])  # a bad item would otherwise stop the run when its turn comes
        return store
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


def training_data(config: Config, folder: Path) -> tuple[MeasurementStore, Acquisitions]:
    """The store to train on, and the acquisitions made of it: the same, but for train.remask and train.noise_std."""
    from .data.acquire import RemaskedAcquisitions
    from .data.assumed import with_noise
    from .evaluation import make_masks

    store = open_store(fully_sampled(config) if config.train.remask else config, folder)
    sizes = store.shape[-2:] if config.data.kind == "raw" else (config.data.image_size, config.data.image_size)
    if store.shape[-2:] != sizes or store.is_mri != config.data.is_mri:
        raise ValueError(
            f"{store.path}: holds {'MRI' if store.is_mri else 'images'} of shape {store.shape}; the config's data "
            f"block says {config.data.kind} of {config.data.image_size} px, use the config it was made with"
        )
    if not config.train.remask:
        return store, with_noise(config.train.noise_std, store, store, folder / NOISE_FILE)
    masks = make_masks(config.data.mask, config.data.image_size)
    data = RemaskedAcquisitions(store, masks, config.data.noise_std, config.data.seed)
    how = "masks and noise are drawn from clean images at every step, so training is not on measurements alone"
    print(f"msm: warning: train.remask: {how}", file=sys.stderr)
    return store, with_noise(config.train.noise_std, store, data, folder / NOISE_FILE)


def fully_sampled(config: Config) -> Config:
    """The same settings with clean images for acquisitions: what train.remask draws its masks from."""
    from .settings import BoxMaskConfig

    clean = {"mask": BoxMaskConfig(drop=0, grid=1), "noise_std": 0.0}
    return config.model_copy(update={"data": config.data.model_copy(update=clean)})


def new_denoiser(config: Config) -> PartialDenoiser:
    """An untrained denoiser with seeded weights, or one that starts from setting.pretrained_model_dir."""
    import torch

    from .evaluation import make_denoiser
    from .network import ADMNetwork

    torch.manual_seed(config.train.seed)
    start = config.setting.pretrained_model_dir
    network = ADMNetwork(**config.network.model_dump()) if start is None else load_network(config, start)
    return make_denoiser(network, config.diffusion)


def other_items(config: Config, first: int) -> Iterator[Source]:
    """Items of the test split from number `first` on; none if the folder is not there."""
    from itertools import islice

    folder = config.setting.dataset_dir
    if folder is None or not folder.is_dir():
        return iter(())
    return islice(sources(config.data, folder, "test"), first, None)


def trained_on(config: Config, given: Path | None) -> MeasurementStore | None:
    """The store that the run's weights were trained on: the one given, or what lies in the training run's folder."""
    from .data.store import MeasurementStore
    from .records import run_config

    if given is not None:
        return MeasurementStore(given)
    weights = config.setting.pretrained_model_dir
    if weights is None or not (weights.parent / "config.yaml").is_file():
        return None
    measured = weights.parent / "measurements.h5"
    path = measured if measured.is_file() else run_config(weights.parent).setting.dataset_dir
    return MeasurementStore(path) if path is not None and path.suffix == ".h5" and path.is_file() else None


def trained_denoiser(config: Config, config_file: Path) -> PartialDenoiser:
    """The denoiser of a trained run, on the device that is there and in the layout that is fast there."""
    import torch

    from .processes import processes

    if config.setting.pretrained_model_dir is None:
        raise ValueError(
            f"{config_file}: setting.pretrained_model_dir: missing; set it to the weights folder of a training run"
        )
    device, denoiser = processes().device, new_denoiser(config)
    if config.diffusion.parametrisation == "sense":
        check_record(config, config.setting.pretrained_model_dir, DENOISER_SETTINGS)
    if device.type == "cuda" and config.sample.mixed_precision != "no":
        denoiser.network.to(memory_format=torch.channels_last)  # tensor cores take it as it is; CPUs are slower with it
    if config.sample.compile:
        denoiser.network.compile(dynamic=False)
    return denoiser.to(device).eval()


def check_record(config: Config, path: Path, names: Collection[str]) -> None:
    """Settings of the diffusion block by these names must be those that the weights were trained with."""
    record = path / DENOISER_FILE
    trained = json.loads(record.read_text()) if record.exists() else {}
    default = type(config.diffusion)()
    for name in sorted(names):
        found, wanted = trained.get(name, getattr(default, name)), getattr(config.diffusion, name)
        if found != wanted:
            raise ValueError(
                f"{path}: was trained with diffusion.{name} = {found}, the config says {wanted}; use the config it "
                "was trained with"
            )


def load_network(config: Config, path: Path) -> Any:
    """A network from a weights folder or a published file; it must fit the config."""
    from .network import ADMNetwork, load_published_weights

    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; set setting.pretrained_model_dir to where the weights are")
    if path.suffix in (".pt", ".safetensors"):
        return load_published_weights(path, **config.network.model_dump())
    network = ADMNetwork.load(path)
    check_record(config, path, {"parametrisation"})
    wanted, found = config.network.model_dump(mode="json"), dict(network.settings)
    for settings in (wanted, found):  # weights of one size serve every other: what counts is where attention is
        side = settings.pop("image_size")
        settings["attention_resolutions"] = sorted(side // other for other in settings["attention_resolutions"])
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(
                f"{path}: a network with {key} = {network.settings[key]} at {network.settings['image_size']} px, the "
                f"config says network.{key} = {getattr(config.network, key)}; use the config it was trained with"
            )
    return network


def record_run(config: Config, folder: Path) -> None:
    """Write the resolved config, the versions and the command into a run folder."""
    from .config import dump_config
    from .report import write_text

    record: dict[str, Any] = {**versions(), "command": f"msm {shlex.join(sys.argv[1:])}"}
    if config.train.remask:
        record["remask"] = True  # trained on masks redrawn from clean images
    write_text(folder / "config.yaml", dump_config(config))
    write_text(folder / "versions.json", json.dumps(record, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results follow from."""
    from importlib.metadata import version

    packages = ("msm-diffusion", "torch", "diffusers", "accelerate")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def sample_grid(config: Config, denoiser: PartialDenoiser, store: MeasurementStore, path: Path) -> None:
    """A few images generated during training, with the coil maps of the store's first item."""
    from .evaluation import make_masks
    from .report import write_picture
    from .sampling import generate

    device = next(denoiser.parameters()).device
    first = store.batch([0]).to(device)
    transform = first.transform
    masks = make_masks(config.data.mask, store.shape[-2:])
    z = generate(denoiser, transform, masks, store.shape, seeds=range(4), steps=25, draws=2)
    write_picture(path, transform.adjoint(z))


def run_generation(config: Config, denoiser: PartialDenoiser) -> None:
    """Generate sample.count images into the run folder; MRI takes its coil maps from the test data."""
    from .evaluation import coil_maps, prior_samples
    from .processes import processes
    from .records import forget
    from .report import write_samples

    settings = config.sample
    maps = coil_maps(test_items(config)) if config.data.is_mri else None
    parts = kept_parts(config, denoiser, [] if maps is None else [maps])
    with progress_bar("generating", settings.count * settings.steps) as advance:
        images = prior_samples(denoiser, config.data, settings, maps, advance, parts.keep)
    if not processes().is_main_process:
        return
    forget(config.setting.save_dir)
    record_run(config, config.setting.save_dir)
    write_samples(config.setting.save_dir, images, [f"sample_{n:05d}" for n in range(settings.count)])
    parts.remove()
    print(f"{config.setting.save_dir}: {len(images)} images, grid.png, images.npy")


def run_reconstruction(config: Config, denoiser: PartialDenoiser) -> None:
    """Solve the inverse problem on test images; metrics.csv has a line for each image, method and convention."""
    import torch

    from .evaluation import posterior_samples, score, summary
    from .processes import processes
    from .records import forget, write_measured
    from .report import Column, error_map, print_table, spread, write_array, write_comparison, write_csv, write_samples

    items, settings, folder = test_items(config), config.sample, config.setting.save_dir
    parts = kept_parts(config, denoiser, [t for item in items for t in (item.image, item.maps) if t is not None])
    with progress_bar("reconstructing", len(items) * settings.samples * settings.steps) as advance:
        inputs, samples = posterior_samples(denoiser, items, config, advance, parts.keep)
    if not processes().is_main_process:
        return
    forget(folder)
    record_run(config, folder)
    names = [Path(item.name).with_suffix("").as_posix().replace("/", "_").replace(":", "_") for item in items]
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
    from .raw_commands import reconstruct_raw

    reconstruct_raw(config, denoiser, progress_bar, lambda: record_run(config, config.setting.save_dir))


def kept_parts(config: Config, denoiser: PartialDenoiser, data: Sequence[Tensor]) -> Parts:
    """The batches of samples that a stopped run of the same settings, weights and data left in the run folder."""
    from .config import dump_config
    from .parts import Parts, fingerprint

    weights = denoiser.state_dict().values()
    device = next(denoiser.parameters()).device
    texts = [dump_config(config), json.dumps(versions()), device.type]
    return Parts(config.setting.save_dir, fingerprint(texts, [*weights, *data]))


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left; gives the function that moves it on. Of several processes one shows it."""
    from rich.progress import Progress

    from .processes import processes

    state = processes()
    total = -(-total // state.num_processes)
    with Progress(disable=not state.is_main_process) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)


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


def main() -> None:
    """Run the command; a mistake the user can mend ends in one line and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_CODE))  # half-written files are removed
    keep_memory()
    try:
        app(args=arguments)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"msm: {' '.join(str(error).split())} (--debug shows where)", file=sys.stderr)
        raise SystemExit(2) from None
