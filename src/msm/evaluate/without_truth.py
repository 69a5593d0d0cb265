"""What `msm evaluate` does where nobody knows the truth: hold out, predict by every method, and say what follows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..measurement import Measurement
from ..output.figures import spread
from ..output.run_folder import versions
from ..sample.observe import completion
from ..sample.shares import Shares
from .classical import INPAINTING, MRI, Method
from .held_out import Judge, Verdict, verdict
from .records import Evaluation, Kind, Pictures, Record, write_evaluation

MOST = 12  # images that are judged, evenly spaced: each takes as long as its samples took
FEWEST_SAMPLES = 8  # drawn of each; more if the run has more
RESULT = "result, from all that was measured"


@dataclass(frozen=True)
class Item:
    """An image of a run that is to be judged.

    Args:
        name: of the image.
        shares: what was measured, shared out.
        result: what the run made of all of it (1, C, H, W), as the file has it.
        shown: from an image (B, C, H, W) as the samplers give it to one as the file has it.
        maps_residual: share of the calibration region's energy that the coil maps do not explain; None for photos.
    """

    name: str
    shares: Shares
    result: Tensor
    shown: Callable[[Tensor], Tensor] = lambda image: image
    maps_residual: float | None = None


def evaluate_held_out(
    folder: Path, items: Iterable[Item], draw: Callable[[int, Measurement], Tensor], calls: int, notes: Sequence[str]
) -> Evaluation:
    """Judge a model on images whose truth nobody knows, by measured entries that it is not given.

    Args:
        folder: the run folder; records.jsonl, evaluation.json and gallery.npz are written into it.
        items: the images.
        draw: posterior samples (K, C, H, W), given what is left of item number n, with K of at least 2.
        calls: network calls a sample.
        notes: what a reader should know.
    """
    records, shown, verdicts, names = list[Record](), list[Pictures](), list[Verdict](), list[str]()
    for number, item in enumerate(items):
        found, pictures, said = judge_item(item, draw(number, item.shares.seen), calls)
        records += found
        shown.append(pictures)
        verdicts.append(said)
        names.append(item.name)
    pictures = {
        title: (kind, _of_one_size([part[title][1] for part in shown])) for title, (kind, _) in shown[0].items()
    }
    facts = Evaluation(
        kind="held-out",
        layers={title: kind for title, (kind, _) in pictures.items()},
        pixels="the pixels held out"
        if verdicts[0].unit == "pixels"
        else "real and imaginary parts of the points held out",
        verdicts=tuple(verdicts),
        notes=tuple(notes),
        versions=versions(),
    )
    write_evaluation(folder, records, facts, pictures, names)
    return facts


def judge_item(item: Item, samples: Tensor, calls: int) -> tuple[list[Record], Pictures, Verdict]:
    """Records of every method's prediction of one item, what the gallery shows of it, and what follows."""
    shares, number = item.shares, len(samples)
    seen, settings = completion(shares.seen), dict[str, str]()
    images: dict[str, tuple[Kind, Tensor]] = {"zero-filled" if seen.y.is_complex() else "input": ("input", seen.input)}
    for name, method in (MRI if seen.y.is_complex() else INPAINTING).items():
        image, settings[name] = classical(shares, method)
        images[name] = "classical", image
    judge = Judge(shares, images["TV"][1])
    predictions = {name: judge.image(image) for name, (_, image) in images.items()}
    one, mean = "MSM, one sample", f"MSM, mean of {number}"
    images |= {one: ("sample", samples[:1]), mean: ("mean", samples.mean(0, keepdim=True))}
    predictions |= {one: judge.one_of(samples), mean: judge.mean_of(samples)}
    cost = {one: calls, mean: calls * number}
    records = [
        Record(
            image=item.name,
            kind=kind,
            method=name,
            network_calls=cost.get(name, 0),
            residual=judge.residual(samples[:1] if kind == "sample" else image),
            setting=settings.get(name, ""),
            prediction=predictions[name],
            ranks=predictions[name].ranks or None,
        )
        for name, (kind, image) in images.items()
    ]
    pictures: Pictures = {name: (kind, item.shown(image)) for name, (kind, image) in images.items()}
    pictures[RESULT] = "mean", item.result
    pictures["standard deviation"] = "deviation", spread(item.shown(samples)[None])
    return records, pictures, verdict(item.name, judge, samples, predictions[mean], item.maps_residual)


def classical(shares: Shares, method: Method) -> tuple[Tensor, str]:
    """A method's image (1, C, H, W) of what was seen, and the setting that predicts the entries of the choice best."""
    less = completion(shares.less)
    setting = min(method.grid, key=lambda setting: _missed(method.run(less, setting), shares))
    return method.run(completion(shares.seen), setting), method.words.format(*setting)


def _missed(image: Tensor, shares: Shares) -> float:
    """Squared error of an image (1, C, H, W) on the entries that settings are chosen on."""
    entries = shares.tuning[0, 0]
    missed = shares.measurement.transform.forward(image)[..., entries] - shares.measurement.values[..., entries]
    return float(missed.abs().square().sum())


def _of_one_size(images: Sequence[Tensor]) -> Tensor:
    """Images (1, C, H, W) one below the other, padded to the size of the largest."""
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))

    def padded(image: Tensor) -> Tensor:
        down, right = height - image.shape[-2], width - image.shape[-1]
        return pad(image, [right // 2, right - right // 2, down // 2, down - down // 2])

    return torch.cat([padded(image) for image in images])
