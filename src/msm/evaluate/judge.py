"""What `msm evaluate` does: measure again what a run measured, reconstruct it classically too, and write records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from ..config.build import make_masks, make_sampler
from ..config.load import Config
from ..data.acquire import Source
from ..data.store import MeasurementStore
from ..errors import DataError, MissingPackage
from ..evaluate import memorisation, perceptual
from ..operators import Problem, Undersampling
from ..output.figures import spread
from ..output.files import read_arrays, write_arrays
from ..output.run_folder import CONFIG, EVALUATION, GALLERY, IMAGES, MEASURED, RECORDS, SAMPLES, forget
from ..sample.observe import observe
from ..system.files import write_text
from .bootstrap import Estimate, of_sets
from .calibration import foreground, rank_counts, residual_ratio, spread_and_error
from .metrics import image_metrics
from .records import (
    Distance,
    Evaluation,
    Neighbour,
    Record,
    Scores,
    remark_of_training,
)
from .tuning import Method, choose, fitting

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

SHOWN = 12  # images in the gallery
TUNING = 8  # images after those of the run, on which classical methods choose their settings
FEW = 8  # images in a set that has a Fréchet distance: fewer, drawn again with repetition, may all be alike
HELD_OUT = 1000  # real images that generated ones are compared with, at most
NEIGHBOURS = 64  # generated images that a nearest training measurement is searched for, at most
AGAIN = "run the same `msm sample` command again"


def evaluate_reconstruction(
    folder: Path,
    config: Config,
    more: Iterable[Source],
    versions: dict[str, str],
    progress: Progress,
    trained: Collection[str] = (),
) -> list[Record]:
    """Judge the reconstructions of a run folder, and classical ones of the same measurements.

    Args:
        folder: the run folder; records.jsonl, evaluation.json and gallery.npz are written into it.
        config: its config.
        more: test images after those of the run, to choose the classical methods' settings on; may be none.
        versions: of the packages, for the record.
        progress: shows a bar.
        trained: names of images that the model was trained on.

    Raises:
        DataError: the folder holds no such run.
    """
    items, inputs, samples = _reconstructed(folder, config)
    notes = remark_of_training([item.name for item in items], trained)
    if lpips := _has_lpips():
        notes.append(lpips)
    records: list[Record] = []
    shown: list[dict[str, Tensor]] = []
    size = config.sample.batch_size
    first = _observe(items[:1], config)
    methods = fitting(first)
    with progress("evaluating", len(methods) + len(items)) as advance:
        settings = _settings(methods, list(islice(more, TUNING)), config, advance)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            found, layers = _judge(items[part], inputs[part], samples[part], config, methods, settings, not lpips)
            records += found
            if start < SHOWN:
                shown.append(layers)
            advance(len(items[part]))
    words = {name: m.words.format(*settings[name][0]) + settings[name][1] for name, m in methods.items() if m.words}
    layers = {name: torch.cat([part[name] for part in shown])[:SHOWN] for name in shown[0]}
    facts = Evaluation(
        kind="reconstruction", pixels=_counted(first)[1], settings=words, notes=tuple(notes), versions=versions
    )
    _write(folder, records, facts, layers, [item.name for item in items[:SHOWN]])
    return records


def evaluate_generation(
    folder: Path,
    config: Config,
    real: Sequence[Source],
    store: MeasurementStore | None,
    versions: dict[str, str],
    progress: Progress,
    trained: Collection[str] = (),
) -> list[Record]:
    """Judge generated images as a set, and look for each among the training measurements.

    Args:
        folder: the run folder.
        config: its config.
        real: real images, of which those trained on do not count as held out; may be none.
        store: what the model was trained on, if it is there.
        versions: of the packages, for the record.
        progress: shows a bar.
        trained: as in `evaluate_reconstruction`.

    Raises:
        DataError: the folder holds no generated images.
    """
    images = torch.from_numpy(read_arrays(folder / IMAGES, AGAIN)["array"])
    if images.ndim != 4 or len(images) != config.sample.count:
        raise DataError(f"{folder / IMAGES}: its shape {tuple(images.shape)} is not the config's; {AGAIN}")
    names = [f"sample_{n:05d}" for n in range(len(images))]
    calls = network_calls(config)
    records = [Record(image=name, method="MSM", network_calls=calls) for name in names]
    layers = {"generated": images[:SHOWN]}
    notes = remark_of_training([item.name for item in real], trained)
    real = [item for item in real if item.name not in trained]
    distances, reasons = _distances(images, real)
    notes += reasons
    if store is None:
        notes.append("nearest training measurement: not searched for, give the training store with --store")
    else:
        with progress("comparing with training measurements", len(store)) as advance:
            near, held_out = _neighbours(images[:NEIGHBOURS], real[:NEIGHBOURS], store, advance)
        records = [record.model_copy(update={"nearest": _neighbour(n)}) for record, n in zip_longest(records, near)]
        records += [
            Record(image=item.name, method="held-out", nearest=_neighbour(n)) for item, n in zip(real, held_out)
        ]
        seen = store.batch([n.index for n in near[:SHOWN]])
        layers["nearest training measurement"] = seen.transform.adjoint(seen.values)
    facts = Evaluation(kind="generation", distances=distances, notes=tuple(notes), versions=versions)
    _write(folder, records, facts, layers, names[:SHOWN])
    return records


def _neighbours(
    images: Tensor, real: Sequence[Source], store: MeasurementStore, advance: Callable[[int], None]
) -> tuple[list[memorisation.Nearest], list[memorisation.Nearest]]:
    """The nearest training measurements of generated images, and of real ones."""
    both = torch.cat([images, *(item.image[None] for item in real)])
    found = memorisation.nearest(both, store, advance=advance)
    return found[: len(images)], found[len(images) :]


def _neighbour(found: memorisation.Nearest | None) -> Neighbour | None:
    if found is None:
        return None
    second = None if found.second == float("inf") else found.second
    return Neighbour(name=found.name, distance=found.distance, second=second)


def network_calls(config: Config) -> int:
    """Network calls for one sample."""
    return make_sampler(config.sample).calls(make_masks(config.data.mask, config.data.image_size))


def _reconstructed(folder: Path, config: Config) -> tuple[list[Source], Tensor, Tensor]:
    """Items, inputs (B, C, H, W) and samples (B, K, C, H, W) of a run."""
    kept = read_arrays(folder / MEASURED, AGAIN)
    samples = torch.from_numpy(read_arrays(folder / SAMPLES, AGAIN)["array"])
    names = kept.pop("names", None)
    arrays = {key: torch.from_numpy(value) for key, value in kept.items()}
    fits = (
        names is not None
        and {"truth", "inputs"} <= arrays.keys()
        and ("maps" in arrays) == config.data.is_mri
        and samples.shape == (len(names), config.sample.samples, *arrays["truth"].shape[1:])
        and arrays["inputs"].shape == arrays["truth"].shape
    )
    if not fits or names is None:
        raise DataError(f"{folder}: {MEASURED}, {SAMPLES} and {CONFIG} do not fit together; {AGAIN}")
    maps = arrays.get("maps", [None] * len(names))
    items = [Source(str(name), image, coils) for name, image, coils in zip(names, arrays["truth"], maps)]
    return items, arrays["inputs"], samples


def _observe(items: Sequence[Source], config: Config) -> Problem:
    assert config.inverse_problem is not None
    return observe(items, config.inverse_problem, config.data, seed=config.sample.seed)


def _settings(
    methods: dict[str, Method], apart: list[Source], config: Config, advance: Callable[[int], None]
) -> dict[str, tuple[tuple, str]]:
    """The setting of each method, and how it was come by."""
    seen = _observe(apart, config) if apart else None
    truth = torch.stack([item.image for item in apart]) if apart else None
    how = f" (best of {{}} on {len(apart)} other images)" if apart else " (fixed)"
    found = {}
    for name, method in methods.items():
        found[name] = (choose(method, seen, truth), how.format(len(method.grid)))
        advance(1)
    return found


def _judge(
    items: Sequence[Source],
    inputs: Tensor,
    samples: Tensor,
    config: Config,
    methods: dict[str, Method],
    settings: dict[str, tuple[tuple, str]],
    lpips: bool,
) -> tuple[list[Record], dict[str, Tensor]]:
    """Records of a batch of items, and what the gallery shows of them."""
    seen, truth = _observe(items, config), torch.stack([item.image for item in items])
    layers = {"zero-filled" if config.data.is_mri else "input": inputs}
    layers |= {name: method.run(seen, settings[name][0]) for name, method in methods.items()}
    calls, number = network_calls(config), samples.shape[1]
    cost = {"MSM, one sample": calls}
    layers["MSM, one sample"] = samples[:, 0]
    if number > 1:
        mean = f"MSM, mean of {number}"
        layers[mean], cost[mean] = samples.mean(1), calls * number
    records = []
    for name, x_hat in layers.items():
        uncertain = _uncertainty(samples, truth, seen) if number > 1 and name == mean else [{}] * len(items)
        rows = _scores(x_hat, truth, seen, lpips)
        records += [
            Record(image=item.name, method=name, network_calls=cost.get(name, 0), **row, **more)
            for item, row, more in zip(items, rows, uncertain)
        ]
    layers["truth"] = truth
    if number > 1:
        layers["standard deviation"] = spread(samples)
    return records, layers


def _scores(x_hat: Tensor, truth: Tensor, seen: Problem, lpips: bool) -> list[dict]:
    """Metrics and residual of each image."""
    plain, published = (image_metrics(x_hat, truth, convention=c) for c in ("plain", "published"))
    mask = seen.operator.mask if isinstance(seen.operator, Undersampling) else None
    given = (seen.y, seen.operator, seen.transform, seen.noise_std, mask)
    residual = residual_ratio(x_hat, *given) if seen.noise_std > 0 else [None] * len(truth)
    distance = perceptual.lpips(x_hat, truth) if lpips else [None] * len(truth)
    return [
        {
            "plain": Scores(**{key: values[i] for key, values in plain.items()}),
            "published": Scores(**{key: values[i] for key, values in published.items()}),
            "residual": residual[i],
            "lpips": distance[i],
        }
        for i in range(len(truth))
    ]


def _counted(seen: Problem) -> tuple[Tensor | None, str]:
    """The pixels that coverage is counted over: those of interest, by the measurement alone."""
    if seen.y.is_complex():
        return foreground(seen.input), "the pixels where the zero-filled image is above 10 % of its maximum"
    if isinstance(seen.operator, Undersampling):
        return ~seen.operator.mask.expand(len(seen.y), -1, -1, -1), "the pixels that were not measured"
    return None, "all pixels"


def _uncertainty(samples: Tensor, truth: Tensor, seen: Problem) -> list[dict]:
    """Ranks of the truth, and the error announced and found, of each image."""
    where, _ = _counted(seen)
    ranks, errors = rank_counts(samples, truth, where), spread_and_error(samples, truth, where)
    return [
        {"ranks": tuple(counts), "announced_error": announced, "actual_error": actual}
        for counts, (announced, actual) in zip(ranks.tolist(), errors)
    ]


def _has_lpips() -> str | None:
    """Why LPIPS cannot be measured; None if it can."""
    try:
        perceptual.cached(perceptual.LPIPS_WEIGHTS, "LPIPS")
    except perceptual.MissingWeights as reason:
        return str(reason)
    return None


def _distances(images: Tensor, real: Sequence[Source]) -> tuple[tuple[Distance, ...], list[str]]:
    """Fréchet distances from held-out images, of as many generated images as of other held-out ones."""
    count = min(len(images), len(real) // 2)
    if count < FEW:
        few = f"needs {FEW} generated and {2 * FEW} held-out images, there are {len(images)} and {len(real)}"
        return (), [f"Fréchet distance: {few}"]
    held_out = torch.stack([item.image for item in real])
    sets = {"MSM": images[:count], "held-out": held_out[:count]}
    features = perceptual.wavelet_features
    reference = features(held_out[count:])
    found = []
    for method, chosen in sets.items():
        e = of_sets(perceptual.wavelet_distance, features(chosen), reference)
        found.append(_distance("FD-wavelet", method, e, count, len(reference)))
    try:
        features = perceptual.inception_features
        reference = features(held_out[count:])
        for method, chosen in sets.items():
            value = perceptual.frechet_distance(features(chosen), reference)
            found.append(_distance("FID", method, Estimate(value), count, len(reference)))
    except (perceptual.MissingWeights, MissingPackage) as reason:
        return tuple(found), [str(reason)]
    return tuple(found), []


def _distance(name: str, method: str, e: Estimate, count: int, reference: int) -> Distance:
    facts = {"name": name, "method": method, "count": count, "reference": reference}
    return Distance.model_validate(facts | {"value": e.value, "low": e.low, "high": e.high})


def _write(
    folder: Path, records: list[Record], facts: Evaluation, layers: dict[str, Tensor], names: Sequence[str]
) -> None:
    forget(folder)
    write_arrays(folder / GALLERY, layers, names)
    write_text(folder / RECORDS, "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records))
    write_text(folder / EVALUATION, facts.model_dump_json(indent=1) + "\n")
