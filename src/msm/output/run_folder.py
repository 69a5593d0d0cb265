"""A run folder: what lies in it, under which name, and how it was made."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config.load import Config, dump_asked, dump_config, load_config
from ..data.folder import PHOTOS
from ..errors import ConfigError, DataError
from ..system.files import obstacle, write_text
from ..system.places import CONFIG

RESOLVED, VERSIONS = "resolved.yaml", "versions.json"  # of every run, beside CONFIG
CHECKPOINTS, LOG = "checkpoints", "log.jsonl"  # of a training run, beside WEIGHTS: as `msm.train` writes them
ROUND = "round_"  # of a refinement: what the folders of its rounds begin with
STORE, NOISE, PICTURES = "measurements.h5", "noise.jsonl", "images"  # PICTURES: a folder, of sampling runs too
IMAGES, GRID, SAMPLES, MEASURED = "images.npy", "grid.png", "samples.npy", "measured.npz"  # of a sampling run
METRICS, COMPARISON = "metrics.csv", "compare.png"
RECORDS, EVALUATION, GALLERY, REPORT = "records.jsonl", "evaluation.json", "gallery.npz", "report.html"  # of judging it


def check_folder(folder: Path, other: str) -> None:
    """Refuse a run folder, before any work, that cannot be written to, or holds a run of another kind.

    Args:
        folder: setting.save_dir.
        other: what such a run has in its folder.

    Raises:
        ConfigError: with what to do.
    """
    if (folder / other).exists():
        raise ConfigError(f"setting.save_dir: {folder} holds another kind of run ({other}); choose another folder")
    if reason := obstacle(folder):
        raise ConfigError(f"setting.save_dir: {folder}: cannot be written to ({reason}); choose another folder")


def file_names(names: Sequence[str]) -> list[str]:
    """What the files of items are called: no folders, not what image files end in, numbered if two were the same."""
    plain = [name[: -len(end)] if (end := Path(name).suffix).lower() in PHOTOS else name for name in names]
    plain = [re.sub(r"[/:\\]", "_", name) for name in plain]
    return plain if len(set(plain)) == len(plain) else [f"{name}_{n}" for n, name in enumerate(plain)]


def record_run(config: Config, folder: Path) -> None:
    """Write the config as asked and as it ran, the versions and the command into a run folder."""
    record: dict[str, Any] = {**versions(), "command": f"msm {shlex.join(sys.argv[1:])}"}
    if config.train.remask:
        record["remask"] = True  # trained on masks redrawn from clean images
    write_text(folder / CONFIG, dump_asked(config))
    write_text(folder / RESOLVED, dump_config(config))
    write_text(folder / VERSIONS, json.dumps(record, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results follow from."""
    packages = ("msm-diffusion", "torch", "diffusers", "accelerate")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def forget(folder: Path) -> None:
    """Remove the evaluation of what the run folder held before."""
    for name in (RECORDS, EVALUATION, GALLERY):
        (folder / name).unlink(missing_ok=True)


def fresh_run(config: Config, folder: Path) -> None:
    """Record a sampling run in its folder, free of the samples that were there before, and of their evaluation."""
    forget(folder)
    for name in (IMAGES, GRID, SAMPLES, MEASURED, METRICS, COMPARISON, REPORT):
        (folder / name).unlink(missing_ok=True)
    for picture in (folder / PICTURES).glob("*.png"):
        picture.unlink()
    record_run(config, folder)


def run_config(folder: Path) -> Config:
    """The config of a run folder, as it ran.

    Raises:
        DataError: it is no run folder.
    """
    path = folder / RESOLVED
    if not path.is_file():
        raise DataError(f"{folder}: no run folder, {RESOLVED} is missing; give the setting.save_dir of a run")
    return load_config(path)
