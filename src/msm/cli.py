"""The command `msm`: arguments, help and errors; `msm.runs` does the work.

Heavy libraries are imported inside the commands, so that `msm --help` answers at once.
"""

import os
import re
import shlex
import signal
import sys
import webbrowser
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import OF_THE_MACHINE, ConfigError, MsmError, one_line
from .system.console import fail, say
from .system.memory import check_room, keep_memory, shortage
from .system.places import BUNDLED, bundled_configs, bundled_models, config_file, is_config, purpose
from .system.signals import EXIT_CODE

app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AFTER_COLON = "_MSM_AFTER_COLON"  # set while a shell completes what follows `bundled:`
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # click's, which newer versions of Typer carry inside


def names_of_the_package(begun: str) -> list[str]:
    """Completions of a config's name that is begun; none of nothing, where a shell shows the files that are there."""
    if os.environ.get(AFTER_COLON):
        return [name.removeprefix(BUNDLED) for name in bundled_models()]
    return [name for name in (*bundled_configs(), *bundled_models()) if begun and name.startswith(begun)]


def expect_colons_of_bash() -> None:
    """Where bash asks for `bundled`, `:` and `fa`, which it takes for three words, leave the last to be completed."""
    words = os.environ.get("COMP_WORDS", "").split("\n")[: int(os.environ.get("COMP_CWORD", 0)) + 1]
    before, name, begun = "\n".join(words).rpartition(f"\n{BUNDLED.replace(':', '')}\n:")
    if name and begun.count("\n") < 2:
        asked = f"{before}\n{begun.strip()}"
        os.environ |= {AFTER_COLON: "yes", "COMP_WORDS": asked, "COMP_CWORD": str(asked.count("\n"))}


ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file, folder of a run, or a name that `msm configs` lists",
        show_default=False,
        autocompletion=names_of_the_package,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="settings to change, as block.key=value, the value as in YAML",
        show_default=False,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="replace results of other settings, and files that msm did not make")
]
OF_NETWORKS = {"train", "refine", "calibrate", "sample"}  # commands that need their libraries
STOPPED = 128 + signal.SIGINT  # what a shell reports of a process that Ctrl-C ended


def show_version(asked: bool) -> None:
    """Say which version this is, and end."""
    if asked:
        say(f"msm {version('msm-diffusion')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Diffusion models trained on noisy, subsampled measurements only.

    A mistake is told in one line, several in one line each; --debug, anywhere, shows where they come from.
    """


@app.command()
def configs(
    name: Annotated[
        str | None,
        typer.Argument(help="the one to print; not given: all are listed", autocompletion=names_of_the_package),
    ] = None,
) -> None:
    """List the configs and models that come with the package, or print one to begin with.

    Their names stand for files: msm train demo/faces, msm sample bundled:scan,
    setting.pretrained_model_dir=bundled:brain.

    Example: msm configs demo/brain > brain.yaml
    """
    if name is not None:
        say(config_file(Path(name)).read_text(encoding="utf-8").rstrip())
        return
    for each in (*bundled_configs(), *bundled_models()):
        say(f"{each:<54} {purpose(each)}")


@app.command()
def acquire(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]... | RAW...",
            help="to simulate: a config and settings to change; to import: raw files, or folders of them",
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
    maps: Annotated[
        Path | None,
        typer.Option(help="to import: coil maps of your own, a file or a folder of them; not given: estimated"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="to import: files at a time, of some 0.9 GB each")] = 1,
    force: Force = False,
) -> None:
    """Write a measurement store: simulate acquisitions of images, or import raw k-space.

    The first argument decides. A config: the images in its setting.dataset_dir are measured, one mask, one noise draw
    each, for ever. Anything else is raw k-space (Siemens .dat; fastMRI and ISMRMRD .h5, .mrd; .npy, .mat, .cfl): every
    slice gets coil maps and a noise level, and STORE.manifest.jsonl says what each file gave. The same command again
    goes on. Files that cannot be used are skipped, and named; the exit code is then 3.

    Example: msm acquire demo/brain -o stores/brain.h5 setting.dataset_dir=SLICES

    Example: msm acquire scans/*.h5 -o stores/brain.h5 --size 256 256 --workers 4
    """
    if not is_config(Path(inputs[0])):
        if truth is not None or split != "train":
            unfit = "--split and --truth are for a CONFIG; raw files have no ground truth, leave both out"
            raise ConfigError(unfit)
        from .runs.raw import import_raw

        import_raw([Path(name) for name in inputs], store, size, coils, maps, workers, force=force)
        return
    from .config.load import load_config
    from .runs.inputs import acquire_store

    if size is not None or coils is not None or maps is not None or workers != 1:
        raise ConfigError("--size, --coils, --maps and --workers are for raw files; CONFIG has settings for these")
    acquire_store(load_config(inputs[0], inputs[1:]), split, store, truth, force=force)


@app.command()
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train on measurements. The same command again goes on from the newest checkpoint.

    Ctrl-C, or SIGTERM, writes one and stops. The command may have other train.images or train.lr than before; what
    the run is, its measurements, network, parametrisation and loss, stays.

    setting.dataset_dir is a store written by `msm acquire`, or a folder of images, which is then measured once
    into setting.save_dir.

    Example: msm train demo/brain setting.dataset_dir=stores/brain.h5
    """
    from .runs.settings import training_config
    from .runs.train import run_training

    if not run_training(training_config(config, overrides or [])):
        raise SystemExit(EXIT_CODE)


@app.command()
def refine(config: ConfigFile, overrides: Overrides = None) -> None:
    """Refine trained weights by expectation-maximisation, from measurements alone: those they were trained on.

    A round completes every acquisition by a posterior sample, then goes on training on these complete images. What
    comes out takes full measurements: it fills in what masks leave out, in one network call a step. Rounds are judged
    by measurements that are held out; one that makes the model worse is not taken. The same command again goes on.

    The folder of a training run has weights and measurements in one; its folder "refined" gets the result.

    Example: msm refine runs/brain refine.rounds=2

    Example: msm refine bundled:brain setting.dataset_dir=stores/brain.h5 setting.save_dir=runs/refined
    """
    from .runs.refine import run_refinement
    from .runs.settings import refinement_config

    if not run_refinement(refinement_config(config, overrides or []), config):
        raise SystemExit(EXIT_CODE)


@app.command()
def calibrate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Measure how wrong the estimates of trained weights are, at each noise level, on measurements.

    On those that train.validation_share keeps out of the training, if it does: of what it was trained on a network
    errs by less than of anything else.

    sample.data_step.kind=draw draws posterior samples with it. `msm train` does so at its end: this is for weights that
    are older, or imported. It goes into the weights' folder, setting.pretrained_model_dir or that of the run.

    Example: msm calibrate runs/brain
    """
    from .runs.calibrate import run_calibration
    from .runs.settings import calibration_config

    run_calibration(calibration_config(config, overrides or []))


@app.command()
def sample(config: ConfigFile, overrides: Overrides = None, force: Force = False) -> None:
    """Generate images, or solve the inverse problem that the config describes.

    Writes PNGs, a grid and the raw arrays to setting.save_dir and, where the truth is known, metrics.csv.

    With data.kind=raw, setting.dataset_dir is a file of raw k-space (Siemens, ISMRMRD, fastMRI, BART, NumPy, MATLAB),
    or a folder of them. Each slice is reconstructed from what the scanner measured: mean and standard deviation over
    sample.samples posterior samples, as HDF5, NIfTI and PNG for each volume. The same command again goes on. Files of
    a folder that cannot be used are skipped, and named; the exit code is then 3.

    sample.score=chain corrects a bias of averaging over masks; it needs a network trained on sub-masks too, with
    train.submask_share above 0 and train.submask_keep from 0.4 or less (boxes at drop 0.4; MRI: near 0).

    sample.preset=best takes the settings that measured best at a tenth of the network calls, paper and published those
    of the paper and of its authors' code; settings after it change it, sample.steps=100 for instance.

    The folder of a training run, or a bundled model, is config and weights in one.

    Example: msm sample runs/faces "inverse_problem={operator: box, hole: 32}" sample.preset=best

    Example: msm sample bundled:scan data.kind=raw setting.dataset_dir=scan.mrd setting.save_dir=runs/scan
    """
    from .runs.sample import run_sampling
    from .runs.settings import sampling_config

    run_sampling(sampling_config(config, overrides or []), config, force=force)


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
    Raw scans, whose truth nobody knows: a tenth of what was measured is held out and predicted, by a second sampling
    run and classical methods, and a verdict follows. A stopped one goes on.

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
    force: Force = False,
) -> None:
    """Write one self-contained HTML page of evaluated runs.

    Several runs of the same measurements, with other steps or draws, give the curve of quality against network calls.

    Example: msm report runs/box15 runs/box50 -o box.html --figure box.pdf
    """
    from .report.figure import FORMATS, check_output
    from .report.page import write_page

    path = output or runs[0] / "report.html"
    check_output("--output", path, (".html", ".htm"), force=force)
    if figure is not None:
        check_output("--figure", figure, FORMATS, force=force)
    write_page(path, runs, f"msm {shlex.join(sys.argv[1:])}", figure)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


@app.command()
def demo(output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")] = Path("runs/demo")) -> None:
    """Show the main job on bundled data with bundled weights: a few minutes on two cores.

    Reconstructs brain slices from undersampled k-space (R = 4, 6, 8), fills and enlarges a portrait, and generates
    new brains and faces. The networks have never seen a clean image. Says each command that it runs, and writes a page
    of what came out, which opens in a browser where there is one.
    """
    from .report.page import write_page
    from .runs.demo import run_demo

    page = output / "report.html"
    write_page(page, run_demo(output), f"msm {shlex.join(sys.argv[1:])}")
    say(f"\n{page}: all of it on one page; pictures are in the folders beside it")
    if sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())


@app.command("import-weights")
def import_weights(
    file: Annotated[Path, typer.Argument(help="published state dict or checkpoint, .pt or .safetensors")],
    folder: Annotated[Path, typer.Argument(help="folder to write")],
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", help="config whose network and data blocks it fits; not given: what its tensors and name say"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Turn published weights into a folder to sample with or to train on from; nothing in the file is executed.

    The tensors tell the network, if it is one of the two published sizes. The name of a published file tells the masks
    and the noise that it was trained on. Weights may lie under a prefix (module.) or beside other things in a
    checkpoint; their average is taken where there is one. What was found and taken is said.

    Example: msm import-weights ffhq_msm_p04_noise0_0_img128.pt weights/ffhq
    """
    from .config.load import load_config
    from .runs.published_weights import import_published

    import_published(file, folder, None if config_file is None else load_config(config_file), force=force)


def main() -> None:
    """Run the command; a mistake the user can mend ends in one line and exit code 2."""
    debug = "--debug" in sys.argv
    home = partial(re.sub, r"^(--\w+=)?~(?=/)", lambda found: f"{found[1] or ''}{Path.home()}")  # the shell left it
    arguments = [home(a) for a in sys.argv[1:] if a != "--debug"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_CODE))  # half-written files are removed
    keep_memory()
    expect_colons_of_bash()
    try:
        if OF_NETWORKS.intersection(arguments[:1]) and not {"--help", "-h"}.intersection(arguments):
            check_room()
        code = app(args=arguments or ["--help"], prog_name="msm", standalone_mode=False)
    except UsageError as error:
        fail(_usage(error))
        raise SystemExit(2) from None
    except (MsmError, OSError) as error:
        # An OSError that names a file, or tells of a full or closed disk, is the user's; any other is a bug, as
        # every other exception is, and shows where it comes from.
        if debug or not (isinstance(error, MsmError) or error.filename or error.errno in OF_THE_MACHINE):
            raise
        told = str(error) if isinstance(error, MsmError) else one_line(str(error))
        fail(f"{told} (--debug shows where)")
        raise SystemExit(2) from None
    except Exception as error:
        if debug or not (short := shortage(error)):
            raise
        fail(f"{short} (--debug shows where)")
        raise SystemExit(2) from None
    except typer.Abort:  # what older versions of Typer make of Ctrl-C
        code = STOPPED
    if code == STOPPED:
        fail("stopped")
    raise SystemExit(code)


def _usage(error: Any) -> str:
    """What is wrong with the arguments, in one line."""
    from .config.schema import Config

    option, command = getattr(error, "option_name", ""), error.ctx.command_path if error.ctx else "msm"
    key = option.lstrip("-").replace("-", "_")
    blocks = {name: field.annotation for name, field in Config.model_fields.items()}
    places = [name for name, block in blocks.items() if key in getattr(block, "model_fields", ())]
    named = key if "." in key else f"{places[0]}.{key}" if places else ""
    hint = f"; write {named}=… without --" if named else ""
    return f"{' '.join(error.format_message().split()).rstrip('.')}{hint} ({command} --help shows what it takes)"
