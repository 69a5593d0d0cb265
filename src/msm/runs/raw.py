"""What `msm acquire RAW` and `msm sample` with data.kind raw do, with the lines they print."""

from pathlib import Path

import numpy as np

from ..config.load import Config
from ..config.sampled import DrawConfig
from ..data.store import MeasurementStore, check_target
from ..denoiser import ERROR_FILE, PartialDenoiser
from ..network.stored import WEIGHTS_FILE
from ..output.run_folder import IMAGES, check_folder, record_run
from ..raw.import_store import import_store, is_imported, manifest_path
from ..raw.prepare import HIGH_RESIDUAL
from ..raw.read_through import ReadThrough
from ..raw.readers import left_out, raw_files
from ..raw.reconstruct import check_slices, open_writers, reconstruct_volumes, survey
from ..raw.volume_files import VolumeWriter, nifti_image
from ..system.console import note, progress, say, table, warn
from ..system.files import digest
from ..system.lock import alone
from ..system.places import weights_folder
from ..system.processes import cost_of, processes
from .inputs import check_new, data_folder

UNKNOWN = "not known"  # share of the calibration energy, where there is no such region
SKIPPED = 3  # exit code: done, but files that could not be used were skipped


def import_raw(
    paths: list[Path],
    store: Path,
    size: tuple[int, int] | None,
    coils: int | None,
    maps: Path | None,
    workers: int,
    *,
    force: bool = False,
) -> None:
    """Import raw files, and tell which of them the coil maps explain badly; exit code 3 if some were skipped.

    A store that is there is replaced only if force is given.
    """
    check_target(store)
    read = _files(paths)
    with alone(store, folder=False):
        if not force and is_imported(read.files, store, size, coils, maps):
            coils, height, width = MeasurementStore(store).shape
            at = f"{height}×{width} from {coils} coils"
            say(f"{store}: holds these files already, at {at} (--force imports them again)")
            return
        check_new(store, read.files, force=force)
        check_new(manifest_path(store), read.files, force=force)
        lines = import_store(read, store, size=size, coils=coils, maps=maps, workers=workers)
    read.tell()
    for line in lines:
        if bad := sum((residual or 0) > HIGH_RESIDUAL for residual in line["maps_residual"]):
            what = f"{bad} of {line['slices']} slices have over {HIGH_RESIDUAL:.0%} of energy outside of the coil maps"
            warn(f"{line['file']}: {what}: noise, motion, or a head that folds over")
    coils, height, width = lines[0]["shape"]
    count = sum(line["slices"] for line in lines)
    say(f"{store}: {count} slices of {height}×{width} from {coils} coils; {manifest_path(store)}: {len(lines)} files")
    _end(read)


def _files(paths: list[Path]) -> ReadThrough:
    """The raw files that paths name; tells of those in folders that are not read."""
    files = raw_files(paths)
    if other := left_out(paths):
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in other.items())
        note(f"{', '.join(map(str, paths))}: {len(files)} raw files; files of other kinds are left out: {kinds}")
    return ReadThrough(files)


def _end(read: ReadThrough) -> None:
    """Say by the exit code that files were skipped."""
    if read.bad:
        warn(f"{len(read.bad)} of {len(read.files)} files were skipped, see above; exit code {SKIPPED}")
        raise SystemExit(SKIPPED)


def run_raw(config: Config, denoiser: PartialDenoiser, *, force: bool = False) -> None:
    """Reconstruct raw files, slice by slice; what an earlier run of the same settings finished stays.

    Args:
        config: the settings; setting.dataset_dir is a raw file or a folder of them.
        denoiser: trained partial denoiser, of setting.pretrained_model_dir.
        force: whether volumes of other settings, and files of others, are replaced.

    Raises:
        DataError: if no file can be used.
        SystemExit: code 3, at the end, if some could not.
        MissingPackage: if nibabel is missing.
        ConfigError: if setting.dataset_dir is missing, or setting.save_dir holds results of other settings.
    """
    settings, folder = config.sample, config.setting.save_dir
    check_folder(folder, IMAGES)
    assert config.setting.pretrained_model_dir is not None
    weights = weights_folder(config.setting.pretrained_model_dir)
    path = data_folder(config, "a raw file, or to a folder of them")
    nifti_image()  # before the work that would be lost without it
    read, maps = _files([path]), config.setting.coil_maps
    volumes = survey(read, maps)
    hashes = {"weights_sha256": digest(weights / WEIGHTS_FILE if weights.is_dir() else weights)}
    if isinstance(settings.data_step, DrawConfig) and denoiser.measured_error is not None:
        hashes["error_sha256"] = digest(weights / ERROR_FILE)  # measured again, it makes other samples
    writers = open_writers(volumes, config, hashes, force=force)
    read.tell()
    for line in check_slices(read, volumes, writers, denoiser.divisor, maps):
        warn(line)
    if processes().is_main_process:
        record_run(config, folder)
    left, before = sum(len(writer.left) for writer in writers.values()), {n for n, w in writers.items() if w.finished}
    total, cost = left * settings.samples * settings.steps, cost_of(settings.batch_size)
    with progress("reconstructing", total, shared=True, cost=cost) as advance:
        reconstruct_volumes(denoiser, read, volumes, writers, config, advance)
    if not processes().is_main_process:
        return
    _tell(folder, ".h5, .nii, _std.nii" if settings.samples > 1 else ".h5, .nii", writers, before, read)
    _end(read)


def _tell(folder: Path, files: str, writers: dict[str, VolumeWriter], before: set[str], read: ReadThrough) -> None:
    """What became of each scan: of one in a line, of several in a table."""
    rows = [_row(name, writer, name in before) for name, writer in writers.items()]
    if len(read.files) > 1:
        table(f"{folder}: of each scan NAME{files}, and PNGs in NAME/", [*rows, *map(_skipped, read.bad)])
        return
    for name, row in zip(writers, rows):
        outside = f"outside of the coil maps {row['Outside']} of the calibration energy"
        judged = "no calibration region to judge the coil maps by" if row["Outside"] == UNKNOWN else outside
        say(f"{folder / name}{files}, and PNGs in {name}/: {row['Slices']} slices, {judged}")


def _row(name: str, writer: VolumeWriter, before: bool) -> dict[str, str]:
    """A volume: how many slices, the noise in the file's units, and what the coil maps do not explain."""
    facts = writer.facts()
    residual, noise = facts["maps_residual"], facts["noise_std"] / facts["scale"]
    outside = f"{residual.min():.1%} to {residual.max():.1%}" if residual.max() >= 0 else UNKNOWN
    return _cells(name, str(len(residual)), f"{np.median(noise):.3g}", outside, "was there" if before else "done")


def _skipped(file: Path) -> dict[str, str]:
    """A file that gave none, there."""
    return _cells(file.name, "", "", "", "skipped")


def _cells(*values: str) -> dict[str, str]:
    """A row; outside of the coil maps is that share of the calibration energy."""
    return dict(zip(("Scan", "Slices", "Noise", "Outside", "Result"), values))
