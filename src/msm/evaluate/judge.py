"""What `msm evaluate` does: measure again what a run measured, reconstruct it classically too, and write records."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..config.build import make_law, make_sampler
from ..config.load import Config
from ..data.acquire import Source
from ..data.store import MeasurementStore
from ..denoiser import PartialDenoiser
from ..errors import DataError, MissingPackage
from ..operators import Problem, Undersampling
from ..output.files import read_arrays
from ..output.run_folder import COMPARISON, IMAGES, MEASURED, SAMPLES, versions
from ..sample.observe import observe
from ..system.console import Advance, progress
from ..system.places import CONFIG
from . import perceptual
from .bootstrap import Estimate, of_sets
from .calibration import errors_by_spread, foreground, rank_counts, residual_ratio, spread_and_error
from .classical import Method, choose, fitting
from .comparison import all_pictures, reconstructions, write_compared
from .memorisation import nearest
from .perceptual import MissingWeights, frechet_distance
from .records import (
    Distance,
    Evaluation,
    PictureKind,
    Pictures,
    Record,
    remark_of_training,
    score,
    write_evaluation,
)
from .subspace import part_names, ranks_in_parts

Classical = dict[str, Callable[[Problem], Tensor]]  # by name
Features = Callable[[Tensor], Tensor]

SHOWN = 12  # images in the gallery
TUNING = 8  # images after those of the run, on which classical methods choose their settings
FEW = 8  # images in a set that has a Fréchet distance: fewer, drawn again with repetition, may all be alike
HELD_OUT = 1000  # real images that generated ones are compared with, at most
NEIGHBOURS = 64  # generated images that a nearest training measurement is searched for, at most
AGAIN = "run the same `msm sample` command again"


def evaluate_reconstruction(
    folder: Path, config: Config, more: Iterable[Source], trained: Collection[str]
) -> list[Record]:
    """Judge the reconstructions of a run folder, and classical ones of the same measurements.

    Args:
        folder: the run folder; records.jsonl, evaluation.json and gallery.npz are written into it, compare.png anew.
        config: its config.
        more: test images after those of the run, to choose the classical methods' settings on; may be none.
        trained: names of images that the model was trained on.

    Raises:
        DataError: the folder holds no such run.
    """
    items, inputs, samples = _reconstructed(folder, config)
    names = [item.name for item in items]
    no_lpips = _no_lpips()
    records, shown, size = list[Record](), list[Pictures](), config.sample.batch_size
    first = _observe(items[:1], config)
    methods = fitting(first)
    with progress("evaluating", len(methods) + len(items)) as advance:
        apart = list(islice(more, TUNING))
        classical, words = _settled(methods, apart, config, advance)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            found, pictures = _judge(items[part], inputs[part], samples[part], config, classical, not no_lpips)
            records += found
            if start < SHOWN:
                shown.append(pictures)
            advance(len(items[part]))
    pictures = {t: (kind, torch.cat([part[t][1] for part in shown])[:SHOWN]) for t, (kind, _) in shown[0].items()}
    notes = (*remark_of_training(names, trained), *no_lpips)
    _, pixels = _counted(first)
    facts = Evaluation(
        kind="reconstruction",
        layers=_kinds(pictures),
        pixels=pixels,
        parts=part_names(first) if samples.shape[1] > 1 else None,
        settings=words,
        notes=notes,
        versions=versions(),
    )
    write_evaluation(folder, records, facts, pictures, names[:SHOWN])
    how = f"tuned on {len(apart)} other images" if apart else "at fixed settings"
    title = f"{folder.name}; classical methods {how}" if words else folder.name
    write_compared(folder / COMPARISON, title, names[:SHOWN], pictures, records)
    return records


def evaluate_generation(
    folder: Path, config: Config, real: Sequence[Source], store: MeasurementStore | None, trained: Collection[str]
) -> list[Record]:
    """Judge generated images as a set, and look for each among the training measurements.

    Args:
        folder: the run folder.
        config: its config.
        real: real images, of which those trained on do not count as held out; may be none.
        store: what the model was trained on, if it is there.
        trained: as in `evaluate_reconstruction`.

    Raises:
        DataError: the folder holds no generated images.
    """
    images = torch.from_numpy(read_arrays(folder / IMAGES, AGAIN)["array"])
    if images.ndim != 4 or len(images) != config.sample.count:
        raise DataError(f"{folder / IMAGES}: its shape {tuple(images.shape)} is not the config's; {AGAIN}")
    names = [f"sample_{n:05d}" for n in range(len(images))]
    calls = network_calls(config)
    records = [Record(image=name, kind="generated", method="MSM", network_calls=calls) for name in names]
    pictures: Pictures = {"generated": ("generated", images[:SHOWN])}
    notes = remark_of_training([item.name for item in real], trained)
    real = [item for item in real if item.name not in trained]
    distances, reasons = _distances(images, real)
    notes += reasons
    if store is None:
        notes.append("nearest training measurement: not searched for, give the training store with --store")
    else:
        records, seen = _with_nearest(records, images[:NEIGHBOURS], real[:NEIGHBOURS], store)
        pictures["nearest training measurement"] = "neighbour", seen
    facts = Evaluation(
        kind="generation", layers=_kinds(pictures), distances=distances, notes=tuple(notes), versions=versions()
    )
    write_evaluation(folder, records, facts, pictures, names[:SHOWN])
    return records


def _with_nearest(
    records: list[Record], images: Tensor, real: Sequence[Source], store: MeasurementStore
) -> tuple[list[Record], Tensor]:
    """Records with the nearest training measurement of each image, then those of real ones; and what it shows."""
    with progress("comparing with training measurements", len(store)) as advance:
        found = nearest(torch.cat([images, *(item.image[None] for item in real)]), store, advance=advance)
    near, held_out = found[: len(images)], zip(real, found[len(images) :])
    records = [record.model_copy(update={"nearest": n}) for record, n in zip_longest(records, near)]
    records += [Record(image=item.name, kind="held-out", method="held-out", nearest=n) for item, n in held_out]
    seen = store.batch([n.index for n in near[:SHOWN]])
    return records, seen.transform.adjoint(seen.values)


def network_calls(config: Config) -> int:
    """Network calls for one sample."""
    law, weights = make_law(config.data), config.setting.pretrained_model_dir
    if law is None:
        assert weights is not None
        law = PartialDenoiser.load(weights).masks
        assert law is not None
    return make_sampler(config.sample).calls(law)


def _reconstructed(folder: Path, config: Config) -> tuple[list[Source], Tensor, Tensor]:
    """Items, inputs (B, C, H, W) and samples (B, K, C, H, W) of a run."""
    kept = read_arrays(folder / MEASURED, AGAIN)
    samples = torch.from_numpy(read_arrays(folder / SAMPLES, AGAIN)["array"])
    names = kept.pop("names", ())
    arrays = {key: torch.from_numpy(value) for key, value in kept.items()}
    fits = (
        len(names) > 0
        and {"truth", "inputs"} <= arrays.keys()
        and ("maps" in arrays) == config.data.is_mri
        and samples.shape == (len(names), config.sample.samples, *arrays["truth"].shape[1:])
        and arrays["inputs"].shape == arrays["truth"].shape
    )
    if not fits:
        raise DataError(f"{folder}: {MEASURED}, {SAMPLES} and {CONFIG} do not fit together; {AGAIN}")
    maps = arrays.get("maps", [None] * len(names))
    items = [Source(str(name), image, coils) for name, image, coils in zip(names, arrays["truth"], maps)]
    return items, arrays["inputs"], samples


def _observe(items: Sequence[Source], config: Config) -> Problem:
    assert config.inverse_problem is not None
    return observe(items, config.inverse_problem, config.data, seed=config.sample.seed)


def _settled(
    methods: dict[str, Method], apart: list[Source], config: Config, advance: Advance
) -> tuple[Classical, dict[str, str]]:
    """Each method at its setting, and what that is and how it was come by."""
    seen, truth = (_observe(apart, config), _images(apart)) if apart else (None, None)
    found, words = Classical(), dict[str, str]()
    for name, method in methods.items():
        setting = choose(method, seen, truth)
        found[name] = partial(method.run, setting=setting)
        if method.words:
            how = f"best of {len(method.grid)} on {len(apart)} other images" if apart else "fixed"
            words[name] = f"{method.words.format(*setting)} ({how})"
        advance(1)
    return found, words


def _judge(
    items: Sequence[Source], inputs: Tensor, samples: Tensor, config: Config, classical: Classical, lpips: bool
) -> tuple[list[Record], Pictures]:
    """Records of a batch of items, and what the gallery shows of them."""
    seen, truth, names = _observe(items, config), _images(items), [item.name for item in items]
    calls, number = network_calls(config), samples.shape[1]
    made = reconstructions(inputs, {name: run(seen) for name, run in classical.items()}, samples)
    cost = {"sample": calls, "mean": calls * number}
    records = []
    for method, (kind, x_hat) in made.items():
        columns = {"network_calls": [cost.get(kind, 0)] * len(items), **_measures(x_hat, truth, seen, lpips)}
        if kind == "mean":
            columns |= _uncertainty(samples, truth, seen)
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        records += [r.model_copy(update=row) for r, row in zip(score(kind, method, x_hat, truth, names), rows)]
    return records, all_pictures(made, truth, samples)


def _measures(x_hat: Tensor, truth: Tensor, seen: Problem, lpips: bool) -> dict[str, Sequence[object]]:
    """What can be measured of each image beside its scores, by the names of `Record`."""
    found: dict[str, Sequence[object]] = {}
    noise_std = float(seen.noise_std)  # of simulated measurements, all alike
    if noise_std > 0:
        mask = seen.operator.mask if isinstance(seen.operator, Undersampling) else None
        found["residual"] = residual_ratio(x_hat, seen.y, seen.operator, seen.transform, noise_std, mask)
    if lpips:
        found["lpips"] = perceptual.lpips(x_hat, truth)
    return found


def _counted(seen: Problem) -> tuple[Tensor | None, str]:
    """The pixels that coverage is counted over: those of interest, by the measurement alone."""
    if seen.y.is_complex():
        return foreground(seen.input), "the pixels where the zero-filled image is above 10 % of its maximum"
    if isinstance(seen.operator, Undersampling):
        return ~seen.operator.mask.expand(len(seen.y), -1, -1, -1), "the pixels that were not measured"
    return None, "all pixels"


def _uncertainty(samples: Tensor, truth: Tensor, seen: Problem) -> dict[str, Sequence[object]]:
    """Ranks of the truth, and the errors announced and found, of each image, by the names of `Record`."""
    where, _ = _counted(seen)
    announced, actual = zip(*spread_and_error(samples, truth, where))
    found: dict[str, Sequence[object]] = {"announced_error": announced, "actual_error": actual}
    found["errors_by_spread"] = [groups or None for groups in errors_by_spread(samples, truth, where)]
    inside, outside = ranks_in_parts(samples, truth, seen)
    counts = {"ranks": rank_counts(samples, truth, where), "ranks_measured": inside, "ranks_unmeasured": outside}
    return found | {name: [tuple(item) for item in c.tolist()] for name, c in counts.items() if c is not None}


def _no_lpips() -> list[str]:
    """Why LPIPS cannot be measured; nothing if it can."""
    try:
        perceptual.cached(perceptual.LPIPS_WEIGHTS, "LPIPS")
    except MissingWeights as reason:
        return [str(reason)]
    return []


def _distances(images: Tensor, real: Sequence[Source]) -> tuple[tuple[Distance, ...], list[str]]:
    """Fréchet distances from held-out images, of as many generated images as of other held-out ones."""
    count = min(len(images), len(real) // 2)
    if count < FEW:
        few = f"needs {FEW} generated and {2 * FEW} held-out images, there are {len(images)} and {len(real)}"
        return (), [f"Fréchet distance: {few}"]
    held_out, found = _images(real), list[Distance]()
    sets: dict[Literal["generated", "held-out"], Tensor]
    sets = {"generated": images[:count], "held-out": held_out[:count]}

    def compare(name: Literal["FD-wavelet", "FID"], features: Features, estimate: Callable[..., Estimate]) -> None:
        reference = features(held_out[count:])
        for kind, chosen in sets.items():
            e = estimate(features(chosen), reference)
            found.append(Distance(name=name, kind=kind, estimate=e, reference=len(reference)))

    compare("FD-wavelet", perceptual.wavelet_features, partial(of_sets, perceptual.wavelet_distance))
    try:
        compare("FID", perceptual.inception_features, lambda a, b: Estimate(frechet_distance(a, b), count=count))
    except (MissingWeights, MissingPackage) as reason:
        return tuple(found), [str(reason)]
    return tuple(found), []


def _images(items: Sequence[Source]) -> Tensor:
    """The images (B, C, H, W) of items."""
    return torch.stack([item.image for item in items])


def _kinds(pictures: Pictures) -> dict[str, PictureKind]:
    return {title: kind for title, (kind, _) in pictures.items()}
