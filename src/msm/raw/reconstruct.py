"""From raw k-space to images with their uncertainty: K posterior samples of each slice, mean and deviation written."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from ..config import identity
from ..config.build import make_data_step, make_sampler
from ..config.load import Config
from ..data_step import DataStep, Proximal
from ..denoiser import Denoiser, PartialDenoiser
from ..errors import DataError
from ..measurement import Measurement
from ..output.figures import Column, comparison, spread
from ..sample.draw import samples_of
from ..sampling import Sampler
from ..system.console import track
from ..system.files import digest, fitting
from ..system.manifest import check_ours
from ..system.processes import processes
from .geometry import Geometry, affine
from .prepare import Prepared, check_calibration, prepare
from .read_through import ReadThrough, remarks
from .readers import import_scans, scans_as_they_are
from .readers.given_maps import maps_file
from .scan import Scan, padded_size, unfit
from .volume_files import VolumeWriter, outputs


def sample_scan(
    denoiser: Denoiser,
    prepared: Prepared,
    *,
    seeds: Sequence[int],
    sampler: Sampler = Sampler(),
    data_step: DataStep = Proximal(),
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda n: None,
) -> Tensor:
    """Posterior samples of the image of one slice, given its measured k-space (SPEC §6).

    Args:
        denoiser: trained partial denoiser with its mask law; it takes any size that its network can halve often enough.
        prepared: a slice fitted to such a size, its maps and noise; its own mask is the operator.
        seeds: one integer for each sample.
        sampler: as in `msm.reconstruct`.
        data_step: as in `msm.reconstruct`.
        batch_size: samples at a time; changes no result. Of several processes each does some of the batches.
        advance: told how many sampler steps were done, a step of each sample counting one.

    Returns:
        (len(seeds), 1, H, W), complex, on the CPU, on the grid and scale of `prepared.scan`: `unfit` leads back to the
        file's grid, dividing by `scan.provenance["scale"]` to its units.
    """
    scan, noise_std = prepared.scan, prepared.noise_std
    measurement = Measurement(scan.k_space[None], scan.mask[None], prepared.maps[None], noise_std)
    how: dict[str, Any] = {"sampler": sampler, "data_step": data_step, "batch_size": batch_size}
    return samples_of(denoiser, measurement, seeds=seeds, advance=advance, **how)


@dataclass
class Volume:
    """The slices of one file that make a volume, as a first reading found them.

    Args:
        file: the raw file.
        shape: H and W on the file's grid.
        slices: where each slice lies, in order.
        taken_for: what the file was taken for, where it does not say itself.
    """

    file: Path
    shape: tuple[int, int]
    slices: list[Geometry]
    taken_for: str | None = None


def survey(read: ReadThrough, maps: Path | None = None) -> dict[str, Volume]:
    """Read all files through once: what volumes they hold. Bad files are found, and left out, before any sampling.

    Args:
        read: the raw files; what is found of them is noted there.
        maps: as of `import_scans`.

    Returns:
        volumes by name, in the order of their first slices.

    Raises:
        DataError: if no file can be used, or volumes of two files have one name.
    """
    volumes: dict[str, Volume] = {}
    for file in track(read.files, "checking"):
        for name, volume in (read.attempt(file, partial(_volumes, file, read, maps)) or {}).items():
            if name in volumes:
                other = volumes[name].file
                raise DataError(f"{file}: {other} has the same name, which the results would have; rename one")
            volumes[name] = volume
    _check_outputs(volumes)
    return volumes


def _check_outputs(volumes: dict[str, Volume]) -> None:
    """Refuse volumes one of which would be written over files of another: a_std.npy over the deviation of a.npy."""
    written: dict[Path, Volume] = {}
    for name, volume in volumes.items():
        for path in outputs(Path(), name):
            if (other := written.setdefault(path, volume)) is not volume:
                what = f"results of {other.file.name}, {path}, would lie where its own do"
                raise DataError(f"{volume.file}: {what}; rename one of the two")


def _volumes(file: Path, read: ReadThrough, maps: Path | None) -> dict[str, Volume]:
    """The volumes of one file."""
    volumes: dict[str, Volume] = {}
    for scan in scans_as_they_are(file, maps):
        check_calibration(scan)
        read.remark(file, remarks(scan))
        height, width = scan.k_space.shape[-2:]
        volume = Volume(file, (height, width), [], scan.provenance.get("taken_for"))
        volume = volumes.setdefault(volume_name(scan, file, read.files), volume)
        if volume.shape != (height, width):
            raise DataError(f"{file}: {scan.name} is {height}×{width}, slices before it {volume.shape}; save it apart")
        volume.slices.append(Geometry.of(scan))
    return volumes


def check_slices(
    read: ReadThrough, volumes: dict[str, Volume], writers: dict[str, VolumeWriter], divisor: int, maps: Path | None
) -> list[str]:
    """Prepare every slice that is not sampled yet, so that none fails when others have taken their time.

    Args:
        read: the raw files; volumes of those that turn out bad are taken out.
        volumes: from `survey`.
        writers: from `open_writers`.
        divisor: of the network's sides.
        maps: as of `import_scans`.

    Returns:
        warnings, a line each.

    Raises:
        DataError: if no file can be used.
    """
    warnings: list[str] = []

    def work(file: Path) -> None:
        counts = dict.fromkeys(volumes, 0)
        for scan in import_scans([file], maps):
            name = volume_name(scan, file, read.files)
            counts[name] += 1
            if counts[name] - 1 in writers[name].left:
                warnings.extend(filter(None, [prepare(scan, padded_size(scan, divisor)).warning]))

    left = dict.fromkeys(v.file for name, v in volumes.items() if writers[name].left)
    for file in track(left, "coil maps", total=len(left)):
        read.attempt(file, partial(work, file))
    _drop_bad(read, volumes, writers)
    return warnings


def _drop_bad(read: ReadThrough, volumes: dict[str, Volume], writers: dict[str, VolumeWriter]) -> None:
    """Take out the volumes of files that cannot be used."""
    for name in [name for name, volume in volumes.items() if volume.file in read.bad]:
        del volumes[name], writers[name]


def scans_of(read: ReadThrough, volumes: dict[str, Volume], maps: Path | None) -> Iterator[tuple[str, Scan]]:
    """The slices of all volumes, each with its volume's name.

    Args:
        read: the raw files.
        volumes: from `survey`.
        maps: as of `import_scans`.
    """
    for file in dict.fromkeys(volume.file for volume in volumes.values()):
        for scan in import_scans([file], maps):
            yield volume_name(scan, file, read.files), scan


def volume_name(scan: Scan, file: Path, files: Sequence[Path]) -> str:
    """Name of the volume that a slice belongs to: the slice's own without its number, behind that of its folder.

    Args:
        scan: the slice.
        file: its file.
        files: all files of the run.
    """
    common = os.path.commonpath([other.absolute().parent for other in files])
    folders = file.absolute().parent.relative_to(common).parts
    return fitting("_".join([*folders, scan.name.rpartition(":")[0].replace(":", "_").replace("/", "_")]))


def open_writers(
    volumes: dict[str, Volume], config: Config, weights: Mapping[str, str], *, force: bool = False
) -> dict[str, VolumeWriter]:
    """Writers of the volumes' HDF5 files; each finds what an earlier run of the same settings left.

    Args:
        volumes: from `survey`.
        config: setting, data, sample and inverse_problem blocks.
        weights: hashes of what samples follow from in the weights, by name.
        force: whether volumes that were made in another way, and files of others, are replaced.

    Raises:
        ConfigError: if a volume is there already and was made in another way, or files of others are in the way.
    """
    writers, how, maps = {}, {**identity.samples(config), **weights}, config.setting.coil_maps
    for name, volume in volumes.items():
        about = {"file": volume.file.name, "sha256": digest(volume.file), **how}
        if volume.taken_for:
            about["taken_for"] = volume.taken_for
        if maps is not None:
            about["coil_maps_sha256"] = digest(maps_file(volume.file, maps))
        path = config.setting.save_dir / f"{name}.h5"
        writers[name] = VolumeWriter(path, len(volume.slices), about, force=force)
    found = gather_object([{name: writer.left for name, writer in writers.items()}])[0]  # before anyone writes
    for name, writer in writers.items():
        writer.left = found[name]
        if not (force or writer.finished):
            check_ours(config.setting.save_dir, [path.name for path in writer.files])
    return writers


def reconstruct_volumes(
    denoiser: PartialDenoiser,
    read: ReadThrough,
    volumes: dict[str, Volume],
    writers: dict[str, VolumeWriter],
    config: Config,
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Reconstruct volumes slice by slice; each is written before the next is read.

    Args:
        denoiser: trained partial denoiser.
        read: the raw files.
        volumes: from `survey`; those of files that fail now are taken out, and their finished slices stay kept.
        writers: from `open_writers`.
        config: setting, data, network, sample and inverse_problem blocks.
        advance: told how many sampler steps were done.

    Raises:
        DataError: if no file can be used.
    """
    settings = config.sample
    draw = partial(
        sample_scan,
        denoiser,
        sampler=make_sampler(settings),
        data_step=make_data_step(settings.data_step),
        batch_size=settings.batch_size,
        advance=advance,
    )

    def work(own: dict[str, Volume], first: int) -> None:
        counts = dict.fromkeys(own, 0)
        for number, (name, scan) in enumerate(scans_of(read, own, config.setting.coil_maps), first):
            index, writer, volume = counts[name], writers[name], own[name]
            counts[name] += 1
            if index in writer.left:
                prepared = prepare(scan, padded_size(scan, denoiser.divisor))
                seed = settings.seed + number * settings.samples  # `number` counts the slices of all files
                samples = draw(prepared, seeds=range(seed, seed + settings.samples))
                if processes().is_main_process:
                    _write(writer, index, prepared, samples)
            if counts[name] == len(volume.slices) and processes().is_main_process:
                writer.finish(affine(volume.shape, volume.slices), volume.slices[0].voxel_mm)

    first = 0
    for file in dict.fromkeys(volume.file for volume in volumes.values()):
        own = {name: volume for name, volume in volumes.items() if volume.file == file}
        read.attempt(file, partial(work, own, first))
        first += sum(len(volume.slices) for volume in own.values())
    _drop_bad(read, volumes, writers)


def _write(writer: VolumeWriter, number: int, prepared: Prepared, samples: Tensor) -> None:
    """Mean and standard deviation on the file's grid: into the volume, in the file's units, and as a PNG."""
    scan = prepared.scan
    images = unfit(samples, scan)
    mean, deviation = images.mean(0, keepdim=True), spread(images[None]) if len(images) > 1 else None
    columns = [Column(f"mean of {len(images)} samples" if len(images) > 1 else "one sample", mean)]
    if deviation is not None:
        columns.append(Column("std. deviation", deviation, is_map=True))
    picture = comparison(scan.name, [""], columns)
    scale = scan.provenance["scale"]
    facts = {"noise_std": prepared.noise_std, "maps_residual": prepared.residual, "scale": scale}
    std = None if deviation is None else deviation[0, 0] / scale
    writer.add(number, mean[0, 0].abs() / scale, std, picture, **facts)
