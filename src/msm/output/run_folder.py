"""A run folder: what lies in it, under which name, and how it was made."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config.load import Config, dump_asked, dump_config, load_config
from ..data.folder import PHOTOS
from ..errors import ConfigError, DataError
from ..system.console import say
from ..system.files import fitting, obstacle, write_text
from ..system.manifest import check_finished, check_ours, check_seal, listed, read_json, replacing
from ..system.places import CONFIG, RESOLVED, is_bundled

VERSIONS = "versions.json"  # of every run, beside CONFIG and RESOLVED
CHECKPOINTS, LOG = "checkpoints", "log.jsonl"  # of a training run, beside WEIGHTS: as `msm.train` writes them
ROUND = "round_"  # of a refinement: what the folders of its rounds begin with
STORE, NOISE, PICTURES = "measurements.h5", "noise.jsonl", "images"  # PICTURES: a folder, of sampling runs too
IMAGES, GRID, SAMPLES, MEASURED = "images.npy", "grid.png", "samples.npy", "measured.npz"  # of a sampling run
METRICS, COMPARISON = "metrics.csv", "compare.png"
RECORDS, EVALUATION, GALLERY, REPORT = "records.jsonl", "evaluation.json", "gallery.npz", "report.html"  # of judging it


ABOUT = (CONFIG, RESOLVED, VERSIONS)
JUDGED = (RECORDS, EVALUATION, GALLERY)
OF_SAMPLING = (*ABOUT, IMAGES, GRID, SAMPLES, MEASURED, METRICS, COMPARISON, *JUDGED, REPORT)
AGAIN = "run the same command again"


def check_folder(folder: Path, *others: str, force: bool = False) -> None:
    """Refuse a run folder, before any work, that cannot be written to, holds a run of another kind, or other files.

    Args:
        folder: setting.save_dir.
        others: what runs of other kinds have in their folders.
        force: whether files of others may be replaced.

    Raises:
        ConfigError: with what to do.
    """
    for other in others:
        if (folder / other).exists():
            raise ConfigError(f"setting.save_dir: {folder} holds another kind of run ({other}); choose another folder")
    if not force:
        check_ours(folder, ABOUT)
    if reason := obstacle(folder):
        raise ConfigError(f"setting.save_dir: {folder}: cannot be written to ({reason}); choose another folder")


def file_names(names: Sequence[str]) -> list[str]:
    """What the files of items are called: no folders, not what image files end in, numbered if two were the same."""
    plain = [name[: -len(end)] if (end := Path(name).suffix).lower() in PHOTOS else name for name in names]
    plain = [fitting(re.sub(r"[/:\\]", "_", name)) for name in plain]
    return plain if len(set(plain)) == len(plain) else [f"{name}_{n}" for n, name in enumerate(plain)]


def record_run(config: Config, folder: Path) -> None:
    """Write the config as asked and as it ran, the versions and the command into a run folder."""
    with replacing(folder, lambda name: name in ABOUT) as filled:
        _describe(config, filled)


def _describe(config: Config, folder: Path, **more: Any) -> None:
    record: dict[str, Any] = {**versions(), "command": f"msm {shlex.join(sys.argv[1:])}", **more}
    if config.train.remask:
        record["remask"] = True  # trained on masks redrawn from clean images
    write_text(folder / CONFIG, dump_asked(config))
    write_text(folder / RESOLVED, dump_config(_wherever(config)))
    write_text(folder / VERSIONS, json.dumps(record, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results follow from."""
    packages = ("msm-diffusion", "torch", "diffusers", "accelerate")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def _wherever(config: Config) -> Config:
    """A config whose paths mean the same in every folder that a command is started in."""
    paths = {name: value for name, value in config.setting if value is not None and not is_bundled(value)}
    absolute = {name: Path(os.path.abspath(value)) for name, value in paths.items()}
    return config.model_copy(update={"setting": config.setting.model_copy(update=absolute)})


@contextmanager
def new_results(config: Config, folder: Path, made: str, *, force: bool = False) -> Iterator[Path]:
    """A folder for the results of a sampling run; once all are there they replace those before, and their evaluation.

    Args:
        config: of the run.
        folder: the run folder.
        made: what the samples follow from, for `are_there`.
        force: whether files of others may be replaced.
    """
    with replacing(folder, lambda n: n in OF_SAMPLING or n.startswith(f"{PICTURES}/"), force=force) as filled:
        _describe(config, filled, samples=made)
        yield filled


def are_there(folder: Path, made: str, *, force: bool = False) -> bool:
    """Whether a run folder holds the very samples that a command is about to draw.

    Args:
        folder: the run folder.
        made: what they follow from.
        force: to draw them anyway; then the answer is no.

    Raises:
        ConfigError: it holds others, or files that are not ours.
        DataError: one of its files is damaged.
    """
    if force:
        return False
    check_ours(folder, (*OF_SAMPLING, PICTURES))
    if volumes := [name for name in listed(folder) if name.endswith(".nii")]:
        raise ConfigError(f"setting.save_dir: {folder} holds another kind of run ({volumes[0]}); choose another folder")
    if IMAGES not in listed(folder):
        return False
    if read_versions(folder).get("samples") != made:
        said = "holds samples of other settings, weights or data"
        raise ConfigError(f"setting.save_dir: {folder} {said}; choose another folder (--force replaces them)")
    try:
        check_seal(folder)
    except DataError as error:
        raise DataError(f"{folder}: {error}; --force draws these samples again") from None
    say(f"{folder}: holds these samples already (--force draws them again)")
    return True


def read_versions(folder: Path) -> dict[str, str]:
    """What a run folder says of how it was made, by name.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / VERSIONS
    found = read_json(path, "the versions of a run", AGAIN)
    if not all(isinstance(value, str | bool) for value in found.values()):
        raise DataError(f"{path}: damaged; {AGAIN}")
    return {name: str(value) for name, value in found.items()}


def run_config(folder: Path) -> Config:
    """The config of a run folder, as it ran.

    Raises:
        DataError: it is no run folder.
    """
    path = folder / RESOLVED
    if not path.is_file():
        raise DataError(f"{folder}: no run folder, {RESOLVED} is missing; give the setting.save_dir of a run")
    check_finished(folder, AGAIN)
    return load_config(path)
