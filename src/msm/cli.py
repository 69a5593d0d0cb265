"""The command `msm`: arguments, help and errors; `msm.runs` does the work.

Heavy libraries are imported inside the commands, so that `msm --help` answers at once.
"""

import errno
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import ConfigError, MsmError, one_line
from .system.console import fail, say
from .system.memory import keep_memory
from .system.signals import EXIT_CODE

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Diffusion models trained on noisy, subsampled measurements only. Errors are one line; --debug, anywhere, "
    "shows where they come from.",
)
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # click's, which newer versions of Typer carry inside
ConfigFile = Annotated[Path, typer.Argument(help="YAML file, for example one of configs/", show_default=False)]
OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.EPIPE),
}
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="settings to change, as block.key=value; see docs/reference/settings.md", show_default=False),
]


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
    truth: Annotated[
        Path | None, typer.Option(help="to simulate: also write the ground truth, to this file (.h5)")
    ] = None,
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
            unfit = "--split and --truth are for a CONFIG.yaml; raw files have no ground truth, leave both out"
            raise ConfigError(unfit)
        from .runs.raw import import_raw

        import_raw([Path(name) for name in inputs], store, size, coils, workers)
        return
    from .config.load import load_config
    from .runs.inputs import write_store

    if size is not None or coils is not None or workers != 1:
        raise ConfigError("--size, --coils and --workers are for raw files; CONFIG.yaml has settings for these")
    count = write_store(load_config(inputs[0], inputs[1:]), split, store, truth)
    say(f"{store}: {count} acquisitions")


@app.command()
def train(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Train on measurements. The same command again goes on from the newest checkpoint.

    Ctrl-C, or SIGTERM, writes one and stops. The command may have other train.images or train.lr than before; what
    the run is, its measurements, network, parametrisation and loss, stays.

    setting.dataset_dir is a store written by `msm acquire`, or a folder of images, which is then measured once
    into setting.save_dir.

    Example: msm train configs/demo/brain.yaml setting.dataset_dir=stores/brain.h5
    """
    from .config.load import load_config
    from .runs.train import run_training

    if not run_training(load_config(config_file, overrides or [])):
        raise SystemExit(EXIT_CODE)


@app.command()
def calibrate(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Measure how wrong the estimates of trained weights are, at each noise level, on their training measurements.

    sample.data_step.kind=draw draws posterior samples with it. `msm train` does so at its end: this is for weights that
    are older, or imported. It goes into the weights' folder, setting.pretrained_model_dir or that of the run.

    Example: msm calibrate runs/brain/config.yaml
    """
    from .config.load import load_config
    from .runs.train import calibrate_run

    calibrate_run(load_config(config_file, overrides or []))


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
    setting.pretrained_model_dir=WEIGHTS

    Example: msm sample runs/brain/config.yaml data.kind=raw setting.dataset_dir=scan.mrd
    setting.pretrained_model_dir=runs/brain/weights setting.save_dir=runs/scan
    """
    from .config.load import load_config
    from .runs.sample import run_sampling

    run_sampling(load_config(config_file, overrides or []), config_file)


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
    from .runs.evaluate import run_evaluation

    run_evaluation(run, store)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="evaluated runs, and training runs for their loss")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write; not given: report.html in the first run")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="also draw the images side by side, with scores: .pdf, .svg or .png", show_default=False),
    ] = None,
) -> None:
    """Write one self-contained HTML page of evaluated runs.

    Several runs of the same measurements, with other steps or draws, give the curve of quality against network calls.

    Example: msm report runs/box15 runs/box50 -o box.html --figure box.pdf
    """
    from .report.figure import check_figure
    from .report.page import write_page

    path = output or runs[0] / "report.html"
    if figure is not None:
        check_figure(figure)
    write_page(path, runs, f"msm {shlex.join(sys.argv[1:])}", figure)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


@app.command()
def demo(output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")] = Path("runs/demo")) -> None:
    """Show the main job on bundled data with bundled weights: a few minutes on two cores.

    Reconstructs brain slices from undersampled k-space (R = 4, 6, 8), fills and enlarges a portrait, and generates
    new brains and faces. The networks have never seen a clean image. Writes figures and tables.
    """
    from .runs.demo import run_demo

    run_demo(output)


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
    from .config.load import load_config
    from .runs.weights import import_published

    import_published(load_config(config_file), file, folder)


def main() -> None:
    """Run the command; a mistake the user can mend ends in one line and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_CODE))  # half-written files are removed
    keep_memory()
    try:
        code = app(args=arguments or ["--help"], prog_name="msm", standalone_mode=False)
    except UsageError as error:
        fail(_usage(error))
        raise SystemExit(2) from None
    except (MsmError, OSError) as error:
        # An OSError that names a file, or tells of a full or closed disk, is the user's; any other is a bug, as
        # every other exception is, and shows where it comes from.
        if debug or not (isinstance(error, MsmError) or error.filename or error.errno in OF_THE_MACHINE):
            raise
        fail(f"{one_line(str(error))} (--debug shows where)")
        raise SystemExit(2) from None
    raise SystemExit(code)


def _usage(error: Any) -> str:
    """What is wrong with the arguments, in one line."""
    option, command = getattr(error, "option_name", ""), error.ctx.command_path if error.ctx else "msm"
    hint = f"; write {option.lstrip('-')}=… without --" if "." in option else ""
    return f"{' '.join(error.format_message().split()).rstrip('.')}{hint} ({command} --help shows what it takes)"
