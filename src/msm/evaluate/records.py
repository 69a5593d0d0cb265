"""A run folder → one record an image and method: what `msm evaluate` writes and `msm report` reads.

    records.jsonl     one line an image and method: `Record`
    evaluation.json   what is said of the whole run: `Evaluation`
    gallery.npz       the first images as every method gives them

`msm sample` leaves samples.npy (images, samples, C, H, W) and measured.npz, or images.npy for a generation.
"""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ..config.load import Config
from ..data.acquire import Source
from ..errors import DataError
from ..output.files import read_arrays, write_arrays
from ..output.run_folder import EVALUATION, GALLERY, JUDGED, MEASURED, RECORDS, read_versions, run_config
from ..system.files import write_text
from ..system.manifest import check, replacing
from .bootstrap import Estimate
from .held_out import Prediction, Verdict
from .memorisation import Nearest
from .metrics import CONVENTIONS, Convention, image_metrics

Kind = Literal["input", "classical", "sample", "mean", "generated", "held-out"]
PictureKind = Literal[Kind, "truth", "deviation", "neighbour"]
Pictures = dict[str, tuple[PictureKind, Tensor]]  # by title
LEARNED = ("sample", "mean", "generated")  # what a trained model made
Best = Callable[[Iterable[float]], float]
METRICS: dict[str, tuple[str, int, Best]] = {  # what scores are called for readers, decimals, which is best
    "psnr": ("PSNR, dB ↑", 2, max),
    "ssim": ("SSIM ↑", 3, max),
    "nmse": ("NMSE ↓", 4, min),
}


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Scores(_Facts):
    """Metrics of one image under one convention (`msm.evaluate.metrics`)."""

    psnr: float
    ssim: float
    nmse: float


class Record(_Facts):
    """What is known of one image by one method; None where it does not apply or could not be measured.

    Args:
        image: name of the image.
        kind: the measurement shown as it is, a classical method, one sample, the mean of samples; or a generated
            image, a real one.
        method: who made it, as a reader is told.
        network_calls: network calls for this image.
        plain, published: scores under the two conventions.
        lpips: perceptual distance.
        residual: y − H T x over what was measured, in units of the noise.
        ranks: how often the truth, or without one a held-out value, has the rank 0 … K among K posterior samples.
        ranks_measured, ranks_unmeasured: the same inside and outside of what was measured (`msm.evaluate.subspace`).
        announced_error, actual_error: root-mean-square error of the mean, as the spread says and in fact.
        errors_by_spread: the same of groups of pixels, the surest first (`msm.evaluate.calibration`).
        nearest: the nearest training measurement.
        prediction: how held-out entries were predicted, where there is no truth.
        setting: of a classical method, where it was chosen for this image.
    """

    image: str
    kind: Kind
    method: str
    network_calls: int = 0
    plain: Scores | None = None
    published: Scores | None = None
    lpips: float | None = None
    residual: float | None = None
    ranks: tuple[float, ...] | None = None
    ranks_measured: tuple[float, ...] | None = None
    ranks_unmeasured: tuple[float, ...] | None = None
    announced_error: float | None = None
    actual_error: float | None = None
    errors_by_spread: tuple[tuple[float, float], ...] | None = None
    nearest: Nearest | None = None
    prediction: Prediction | None = None
    setting: str = ""

    def scores(self, convention: Convention) -> Scores:
        """The scores of a reconstruction."""
        found = self.plain if convention == "plain" else self.published
        assert found is not None, f"{self.kind} images have no scores"
        return found


class Distance(_Facts):
    """A Fréchet distance of generated, or of held-out images from `reference` other held-out ones."""

    name: Literal["FD-wavelet", "FID"]
    kind: Literal["generated", "held-out"]
    estimate: Estimate
    reference: int


class Evaluation(_Facts):
    """What is said of a whole run.

    Args:
        kind: what the run was.
        layers: the kind of each array of the gallery, by its name.
        pixels: which pixels coverage is counted over.
        parts: what the measured part is called, and the other, where coverage is counted in them too.
        settings: of each classical method.
        distances: Fréchet distances of generated images.
        verdicts: what is said of each image without truth.
        notes: what was not measured, and why; and what else a reader should know.
        versions: of the packages that evaluated.
    """

    kind: Literal["reconstruction", "generation", "held-out"]
    layers: dict[str, PictureKind]
    pixels: str = ""
    parts: tuple[str, str] | None = None
    settings: dict[str, str] = {}
    distances: tuple[Distance, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
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
    gallery: dict[str, np.ndarray]
    made: dict[str, str]


Facts = TypeVar("Facts", bound=BaseModel)


def score(kind: Kind, method: str, x_hat: Tensor, truth: Tensor, names: Sequence[str]) -> list[Record]:
    """Records of reconstructions (B, C, H, W), with their scores under both conventions."""
    plain, published = (
        [Scores(psnr=p, ssim=s, nmse=e) for p, s, e in zip(*image_metrics(x_hat, truth, convention=c).values())]
        for c in CONVENTIONS
    )
    given = zip(names, plain, published)
    return [Record(image=name, kind=kind, method=method, plain=p, published=q) for name, p, q in given]


def write_scores(path: Path, records: Sequence[Record]) -> None:
    """Write a CSV file with a line for each record and convention, numbers to six digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "method", "convention", *Scores.model_fields])
    for record in records:
        for convention in CONVENTIONS:
            values = (f"{value:.6g}" for _, value in record.scores(convention))
            writer.writerow([record.image, record.method, convention, *values])
    write_text(path, text.getvalue())


def caption(record: Record) -> str:
    """A line for a picture: its scores, convention plain, or what it is compared with."""
    if record.plain is not None:
        return f"{record.plain.psnr:.2f} dB, SSIM {record.plain.ssim:.3f}"
    if record.prediction is not None:
        return f"error on held-out data {record.prediction.error.value:.4f}"
    if record.nearest is not None:
        return f"{record.nearest.name}, distance {record.nearest.distance:.3f}"
    return ""


def summary(records: Sequence[Record], names: Mapping[str, str] = {}) -> list[dict[str, str]]:
    """Mean scores of each method, convention plain, as they are printed: equal digits in a column, a * at the best.

    Args:
        records: of one set of images.
        names: what methods are called for readers, if not as in the records.
    """
    methods = list(dict.fromkeys(record.method for record in records))
    found = {name: [r.scores("plain") for r in records if r.method == name] for name in methods}
    table = [{"Method": names.get(method, method)} for method in methods]
    for name, (head, digits, best) in METRICS.items():
        means = [sum(getattr(x, name) for x in scores) / len(scores) for scores in found.values()]
        places = decimals(means, digits)
        texts = [f"{value:.{places}f}" for value in means]
        for row, text in zip(table, texts):
            row[head] = f"* {text}" if text == texts[means.index(best(means))] else text
    return table


def decimals(values: Sequence[float], least: int) -> int:
    """How many decimals a column gets: so many, or more until its smallest number shows three digits; 7 at most."""
    smallest = min((abs(value) for value in values if value and math.isfinite(value)), default=1.0)
    return min(7, max(least, 2 - math.floor(math.log10(smallest))))


def remark_of_training(names: Sequence[str], trained: Collection[str]) -> list[str]:
    """What is to be said of test images that the model was trained on; nothing if there are none."""
    seen = sum(name in trained for name in names)
    if not seen:
        return []
    why = "a folder of fewer than 100, or data.held_out=0, keeps none apart"
    return [f"{seen} of {len(names)} images are not held out, the model was trained on them: {why}"]


def write_measured(folder: Path, items: Sequence[Source], inputs: Tensor) -> None:
    """Keep what `evaluate` needs to repeat the measurements: names, truth, coil maps, and the input images."""
    maps = [item.maps for item in items if item.maps is not None]
    arrays = {"truth": torch.stack([item.image for item in items]), "inputs": inputs}
    if maps:
        arrays["maps"] = torch.stack(maps)
    write_arrays(folder / MEASURED, arrays, [item.name for item in items])


def write_evaluation(
    folder: Path, records: Sequence[Record], facts: Evaluation, pictures: Pictures, names: Sequence[str]
) -> None:
    """Write records, what is said of the whole run and the gallery, in place of an earlier evaluation."""
    with replacing(folder, lambda name: name in JUDGED) as filled:
        write_arrays(filled / GALLERY, {title: images for title, (_, images) in pictures.items()}, names)
        write_text(filled / RECORDS, "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records))
        write_text(filled / EVALUATION, facts.model_dump_json(indent=1) + "\n")


def read_records(folder: Path) -> list[Record]:
    """The records of an evaluated run.

    Raises:
        DataError: the run is not evaluated, or a line is damaged.
    """
    path = folder / RECORDS
    if not path.is_file() or not (folder / EVALUATION).is_file():
        raise DataError(f"{folder}: is not evaluated; run first: msm evaluate {folder}")
    check(path, f"run again: msm evaluate {folder}")
    with path.open(encoding="utf-8", errors="replace") as lines:
        return [_parse(Record, line, f"{path}, line {n}", folder) for n, line in enumerate(lines, 1) if line.strip()]


def read_evaluation(folder: Path) -> Evaluation:
    """What is said of the whole run; see `read_records`."""
    path = folder / EVALUATION
    check(path, f"run again: msm evaluate {folder}")
    return _parse(Evaluation, path.read_text(encoding="utf-8", errors="replace"), str(path), folder)


def read_run(folder: Path, label: str) -> Run:
    """Everything that a page shows of an evaluated run; the label is its name there.

    Raises:
        DataError: it is not evaluated, or a file is missing or damaged.
    """
    config, records, evaluation = run_config(folder), read_records(folder), read_evaluation(folder)
    gallery = read_arrays(folder / GALLERY, f"run again: msm evaluate {folder}")
    sizes = {len(images) if images.ndim else 0 for images in gallery.values()}
    if gallery.keys() != {"names", *evaluation.layers} or len(sizes) > 1:
        raise DataError(f"{folder / GALLERY}: does not fit {EVALUATION}; run again: msm evaluate {folder}")
    if reason := _misfit(records, evaluation):
        raise DataError(f"{folder / RECORDS}: {reason}; run again: msm evaluate {folder}")
    return Run(folder, label, config, records, evaluation, gallery, read_versions(folder))


def _misfit(records: Sequence[Record], evaluation: Evaluation) -> str | None:
    """Why records are not those of an evaluation, though each by itself may be; None if they are."""
    if not records:
        return "has no records"
    if evaluation.kind == "reconstruction" and any(None in (record.plain, record.published) for record in records):
        return "an image has no scores"
    ranks: dict[str, set[int]] = {}
    for record in records:
        found = (record.ranks, record.ranks_measured, record.ranks_unmeasured)
        ranks.setdefault(record.method, set()).update(len(counts) for counts in found if counts is not None)
    different = [method for method, numbers in ranks.items() if len(numbers) > 1 or 0 in numbers]
    return f"images by {different[0]} have ranks among other numbers of samples" if different else None


def _parse(model: type[Facts], text: str, where: str, folder: Path) -> Facts:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
        raise DataError(
            f"{where}: damaged, or of another version of msm ({reason}); run again: msm evaluate {folder}"
        ) from error
