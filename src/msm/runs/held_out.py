"""What `msm evaluate` does where nobody knows the truth: images are sampled again without what is held out."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ..config import identity
from ..config.build import make_data_step, make_sampler
from ..config.load import Config
from ..data.acquire import item_generator
from ..denoiser import PartialDenoiser
from ..errors import DataError
from ..evaluate.held_out import in_words
from ..evaluate.without_truth import FEWEST_SAMPLES, MOST, Item, evaluate_held_out
from ..measurement import Measurement
from ..output.files import read_arrays
from ..output.run_folder import MEASURED, SAMPLES, versions
from ..raw.hold_out import hold_out
from ..raw.prepare import prepare
from ..raw.read_through import ReadThrough
from ..raw.readers import raw_files
from ..raw.reconstruct import scans_of, survey
from ..raw.scan import Scan, padded_size, unfit
from ..sample.draw import Keep, Work, samples_of
from ..sample.kept_batches import Parts
from ..sample.shares import of_photo
from ..system.console import progress, say
from ..system.files import digest, fingerprint
from ..system.places import RESOLVED
from ..system.processes import arithmetic
from .inputs import data_folder
from .weights import trained_denoiser

AGAIN = "run the same `msm sample` command again"


def evaluate_raw(run: Path, config: Config) -> None:
    """Judge a run on raw scans by measured k-space that the model is not given.

    Raises:
        DataError: the run is not finished, or a file cannot be used.
    """
    denoiser = trained_denoiser(config, run / RESOLVED)
    read = ReadThrough(raw_files([data_folder(config, "the raw files of the run")]))
    volumes = survey(read, config.setting.coil_maps)
    for name in volumes:
        if not (run / f"{name}.h5").is_file():
            raise DataError(f"{run}: {name}.h5 is missing; {AGAIN}")
    total = sum(len(volume.slices) for volume in volumes.values())
    chosen = spaced(total)
    seeds = config.sample.seed + total * config.sample.samples  # those before made the run's own samples
    texts = [digest(volume.file) for volume in volumes.values()]
    notes = [] if len(chosen) == total else [f"{len(chosen)} of {total} slices were judged, evenly spaced"]
    scans = scans_of(read, volumes, config.setting.coil_maps)
    judge(run, config, denoiser, _slices(run, scans, chosen, denoiser.divisor), len(chosen), seeds, texts, notes)


def _slices(run: Path, scans: Iterator[tuple[str, Scan]], chosen: Sequence[int], divisor: int) -> Iterator[Item]:
    """The chosen slices of all files, prepared as they were for the run, and what it made of them."""
    counts: Counter[str] = Counter()
    for number, (name, scan) in enumerate(scans):
        index = counts[name]
        counts[name] += 1
        if number not in chosen:
            continue
        prepared = prepare(scan, padded_size(scan, divisor))
        with h5py.File(run / f"{name}.h5") as file:
            result = torch.from_numpy(file["reconstruction"][index] * prepared.scan.provenance["scale"])
        shown = partial(unfit, scan=prepared.scan)
        yield Item(scan.name, hold_out(prepared), result[None, None].to(torch.complex64), shown, prepared.residual)


def evaluate_photos(run: Path, config: Config) -> None:
    """Judge a run on photos that miss pixels by pixels that the model is not given.

    Raises:
        DataError: the run is not finished, or its files do not fit together.
    """
    denoiser = trained_denoiser(config, run / RESOLVED)
    kept, samples = read_arrays(run / MEASURED, AGAIN), torch.from_numpy(read_arrays(run / SAMPLES, AGAIN)["array"])
    if not {"names", "values", "mask", "noise_std"} <= kept.keys() or len(samples) != len(kept["names"]):
        raise DataError(f"{run}: {MEASURED} and {SAMPLES} do not fit together; {AGAIN}")
    names, total = [str(name) for name in kept["names"]], len(samples)
    values, mask = (torch.from_numpy(kept[part]) for part in ("values", "mask"))
    noise_std = np.broadcast_to(kept["noise_std"], total)

    def item(n: int) -> Item:
        photo = Measurement(values[n : n + 1], mask[n : n + 1], None, float(noise_std[n]))
        shares = of_photo(photo, item_generator(names[n], config.sample.seed), names[n])
        return Item(names[n], shares, samples[n].mean(0)[None])

    incomplete = [n for n in range(total) if not mask[n].all()]
    chosen = [incomplete[n] for n in spaced(len(incomplete))]
    if not chosen:
        raise DataError(f"{run}: no photo misses a pixel, so there is nothing to hold out; give photos that do")
    notes = [] if len(chosen) == total else [f"{len(chosen)} of {total} photos were judged, evenly spaced"]
    seeds = config.sample.seed + total * config.sample.samples
    judge(run, config, denoiser, map(item, chosen), len(chosen), seeds, [fingerprint(names, [values, mask])], notes)


def spaced(total: int) -> list[int]:
    """Numbers of the images that are judged: all, or `MOST` of them evenly spaced."""
    count = min(total, MOST)
    return [(2 * n + 1) * total // (2 * count) for n in range(count)]


def judge(
    run: Path,
    config: Config,
    denoiser: PartialDenoiser,
    items: Iterator[Item],
    count: int,
    seeds: int,
    data: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Sample each item again without what is held out, and write and tell what follows; a stopped run goes on.

    Args:
        run: the run folder.
        config: its config.
        denoiser: its denoiser.
        items: the images.
        count: how many there are.
        seeds: of the first sample; the run's own are others.
        data: what tells these images from others, hashes for instance.
        notes: what a reader should know.
    """
    settings, number = config.sample, max(config.sample.samples, FEWEST_SAMPLES)
    sampler, data_step = make_sampler(settings), make_data_step(settings.data_step)
    texts = [json.dumps([identity.samples(config), versions(), seeds]), denoiser.schedule.device.type, *data]
    parts = Parts(run, fingerprint(texts, denoiser.tensors()))
    assert denoiser.masks is not None  # `trained_denoiser` sees to it
    with arithmetic(settings.mixed_precision), progress("evaluating", count * number * settings.steps) as advance:

        def draw(n: int, seen: Measurement) -> Tensor:
            return samples_of(
                denoiser,
                seen,
                seeds=range(seeds + n * number, seeds + (n + 1) * number),
                sampler=sampler,
                data_step=data_step,
                batch_size=settings.batch_size,
                advance=advance,
                keep=_numbered(parts, n * number),
            )

        said = evaluate_held_out(run, items, draw, sampler.calls(denoiser.masks), notes)
    parts.remove()
    for line in in_words(said.verdicts):
        say(f"{run}: {line}")
    say(f"{run}: a page of it: msm report {run}")


def _numbered(parts: Parts, first: int) -> Keep:
    """`Parts.keep` for the samples of one item, which are numbered on from `first` among those of all items."""

    def keep(work: Work, reused: Callable[[range], None]) -> Work:
        kept = parts.keep(lambda numbers: work(range(numbers.start - first, numbers.stop - first)), reused)
        return lambda numbers: kept(range(numbers.start + first, numbers.stop + first))

    return keep
