"""A run folder → one record an image and method: what `msm evaluate` writes and `msm report` reads.

    records.jsonl     one line an image and method: `Record`
    evaluation.json   what is said of the whole run: `Evaluation`
    gallery.npz       the first images as every method gives them

`msm sample` leaves samples.npy (images, samples, C, H, W) and measured.npz, or images.npy for a generation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DataError
from ..output.files import read_arrays, write_arrays
from ..output.run_folder import EVALUATION, GALLERY, MEASURED, RECORDS, VERSIONS, run_config

if TYPE_CHECKING:
    from torch import Tensor

    from ..config.load import Config
    from ..data.acquire import Source


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Scores(_Facts):
    """Metrics of one image under one convention (`msm.evaluate.metrics`)."""

    psnr: float
    ssim: float
    nmse: float


class Neighbour(_Facts):
    """The nearest training measurement (`msm.evaluate.memorisation.Nearest`); `second` is None if there is one item."""

    name: str
    distance: float
    second: float | None = None


class Record(_Facts):
    """What is known of one image by one method; None where it does not apply or could not be measured.

    Args:
        image: name of the image.
        method: who made it; "held-out" for a real image.
        network_calls: network calls for this image.
        plain, published: scores under the two conventions.
        lpips: perceptual distance.
        residual: y − H T x over what was measured, in units of the noise.
        ranks: how often the truth has the rank 0 … K among K posterior samples.
        announced_error, actual_error: root-mean-square error of the mean, as the spread says and in fact.
        nearest: the nearest training measurement.
    """

    image: str
    method: str
    network_calls: int = 0
    plain: Scores | None = None
    published: Scores | None = None
    lpips: float | None = None
    residual: float | None = None
    ranks: tuple[float, ...] | None = None
    announced_error: float | None = None
    actual_error: float | None = None
    nearest: Neighbour | None = None


class Distance(_Facts):
    """A Fréchet distance of a set of images from held-out ones, with its 95 % interval if there is one."""

    name: Literal["FD-wavelet", "FID"]
    method: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int
    reference: int


class Evaluation(_Facts):
    """What is said of a whole run.

    Args:
        kind: what the run was.
        pixels: which pixels coverage is counted over.
        settings: of each classical method.
        distances: Fréchet distances of generated images.
        notes: what was not measured, and why; and what else a reader should know.
        versions: of the packages that evaluated.
    """

    kind: Literal["reconstruction", "generation"]
    pixels: str = ""
    settings: dict[str, str] = {}
    distances: tuple[Distance, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Run:
    """What an evaluated run folder holds; `label` tells it from the other runs of the page."""

    folder: Path
    label: str
    config: Config
    records: list[Record]
    evaluation: Evaluation
    gallery: dict[str, Any]
    made: dict[str, str]


Facts = TypeVar("Facts", bound=BaseModel)


def remark_of_training(names: Sequence[str], trained: Collection[str]) -> list[str]:
    """What is to be said of test images that the model was trained on; nothing if there are none."""
    seen = sum(name in trained for name in names)
    if not seen:
        return []
    why = "a folder of fewer than 100, or data.held_out=0, keeps none apart"
    return [f"{seen} of {len(names)} images are not held out, the model was trained on them: {why}"]


def write_measured(folder: Path, items: Sequence[Source], inputs: Tensor) -> None:
    """Keep what `evaluate` needs to repeat the measurements: names, truth, coil maps, and the input images."""
    import torch

    maps = [item.maps for item in items if item.maps is not None]
    arrays = {"truth": torch.stack([item.image for item in items]), "inputs": inputs}
    if maps:
        arrays["maps"] = torch.stack(maps)
    write_arrays(folder / MEASURED, arrays, [item.name for item in items])


def read_records(folder: Path) -> list[Record]:
    """The records of an evaluated run.

    Raises:
        DataError: the run is not evaluated, or a line is damaged.
    """
    path = folder / RECORDS
    if not path.is_file() or not (folder / EVALUATION).is_file():
        raise DataError(f"{folder}: is not evaluated; run first: msm evaluate {folder}")
    return [_parse(Record, line, f"{path}, line {n}", folder) for n, line in _lines(path) if line.strip()]


def read_evaluation(folder: Path) -> Evaluation:
    """What is said of the whole run; see `read_records`."""
    path = folder / EVALUATION
    return _parse(Evaluation, path.read_text(encoding="utf-8", errors="replace"), str(path), folder)


def read_run(folder: Path, label: str) -> Run:
    """Everything that a page shows of an evaluated run; the label is its name there.

    Raises:
        DataError: it is not evaluated, or a file is missing or damaged.
    """
    import yaml

    config, records, evaluation = run_config(folder), read_records(folder), read_evaluation(folder)
    gallery = read_arrays(folder / GALLERY, f"run again: msm evaluate {folder}")
    try:
        made = yaml.safe_load((folder / VERSIONS).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{folder / VERSIONS}: cannot be read ({error}); run msm sample again") from error
    return Run(folder, label, config, records, evaluation, gallery, made)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)


def _parse(model: type[Facts], text: str, where: str, folder: Path) -> Facts:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DataError(f"{where}: damaged ({reason}); run again: msm evaluate {folder}") from error
