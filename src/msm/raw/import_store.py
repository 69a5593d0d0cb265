"""Raw files into a measurement store: streamed slice by slice, files in parallel, gone on with after a break.

Each file becomes a part, `STORE.parts/KEY.h5`, whose key is made of the file's hash and the settings; parts that are
there are not made again. The store is put together from them in the order of the files, so its bytes do not depend on
the number of workers, and `STORE.manifest.jsonl` gets a line for each file.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..data.store import MeasurementStore, StoreWriter, check_target
from ..errors import DataError
from ..system.console import track
from ..system.files import digest, write_text
from .prepare import check_calibration, prepare
from .read_through import ReadThrough, remarks
from .readers import import_scans, scans_as_they_are
from .readers.given_maps import maps_file
from .scan import Scan

SMALLEST = 8  # side of an item, as of data.image_size
MULTIPLE = 16  # of which the sides are if no size is given: networks of up to five levels take them
FACTS = ("scale", "noise_std", "maps_residual")  # of each slice, in the manifest
VERSION = 4  # of what `_import_file` does: parts of other versions are not used

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Job:
    """What one part is made of."""

    file: Path
    parts: Path
    prefix: str
    size: tuple[int, int]
    coils: int | None
    maps: Path | None


def import_store(
    read: ReadThrough,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    coils: int | None = None,
    maps: Path | None = None,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Import raw files into a measurement store with coil maps and noise levels, and write the manifest beside it.

    Args:
        read: raw files; their order is the store's. Bad ones are left out, and noted there.
        path: the store to write.
        size: height and width of all items, at least 8; None for the largest, in multiples of 16, that no slice is
            padded to.
        coils: compress to so many; None keeps all, of which all files must then have the same number.
        maps: as of `import_scans`.
        workers: processes; each takes some 0.9 GB.

    Returns:
        the lines of the manifest: file, sha256, slices, shape, a list of scale, noise_std and maps_residual, and
        taken_for, what a file was taken for that does not say itself.

    Raises:
        DataError: if no file can be used, or one does not go with the others. All are read through before the first
            is imported. Before that, if `size` is too small, or `path` cannot be written.
    """
    if size is not None and min(size) < SMALLEST:
        raise DataError(f"--size: found {size[0]} {size[1]}; height and width should be at least {SMALLEST}")
    check_target(path)
    files, size = _look_through(read, size, coils, maps, workers)
    common = Path(os.path.commonpath([file.absolute().parent for file in read.files]))
    parts = path.with_name(path.name + ".parts")
    prefixes = [file.absolute().parent.relative_to(common).as_posix() for file in files]
    jobs = [_Job(f, parts, "" if p == "." else p + "/", size, coils, maps) for f, p in zip(files, prefixes)]
    try:
        made = []
        for job, line in zip(jobs, _in_parallel(_import_file, jobs, workers, "importing")):
            if isinstance(line, DataError):
                read.leave_out(job.file, line)
            else:
                made.append((job, line))
        lines = [line for _, line in made]
        _join(path, [job for job, _ in made], lines)
    finally:
        if parts.is_dir() and not any(parts.glob("*.h5")):  # nothing that could be gone on with
            shutil.rmtree(parts)
    shutil.rmtree(parts)
    return lines


def is_imported(
    files: Sequence[Path], path: Path, size: tuple[int, int] | None, coils: int | None, maps: Path | None
) -> bool:
    """Whether a store is there that these very files were imported into, in this way: see `import_store`."""
    manifest = manifest_path(path)
    if not (path.is_file() and manifest.is_file()):
        return False
    try:
        lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        made = [(line["sha256"], line.get("coil_maps_sha256")) for line in lines]
    except (ValueError, KeyError, TypeError):
        return False
    asked = {"coils": coils} if size is None else {"coils": coils, "size": list(size)}
    found = MeasurementStore(path).provenance
    same = all(found.get(name) == value for name, value in asked.items())
    return same and made == [(digest(file), maps and digest(maps_file(file, maps))) for file in files]


def _look_through(
    read: ReadThrough, size: tuple[int, int] | None, coils: int | None, maps: Path | None, workers: int
) -> tuple[list[Path], tuple[int, int]]:
    """The files that can be used, and the size of all items."""
    files, shapes = [], []
    looking = _in_parallel(partial(_smallest, maps=maps), read.files, workers, "looking at sizes and coils")
    for file, found in zip(read.files, looking):
        if isinstance(found, DataError):
            read.leave_out(file, found)
        else:
            files.append(file)
            shapes.append(found[:3])
            read.remark(file, found[3])
    counts, heights, widths = zip(*shapes)
    _check_coils(files, counts, coils)
    if size is None:
        height, width = (max(MULTIPLE, min(sides) // MULTIPLE * MULTIPLE) for sides in (heights, widths))
        size = height, width
    return files, size


def _join(path: Path, jobs: Sequence[_Job], lines: list[dict[str, Any]]) -> None:
    """Put the store together from its parts, and write the manifest."""
    provenance = {"source": "raw", "size": list(jobs[0].size), "coils": jobs[0].coils, "files": len(jobs)}
    manifest = []
    with StoreWriter(path, provenance) as store:
        for job, line in zip(jobs, lines):
            store.extend(job.parts / f"{line['key']}.h5")
            relative = Path(os.path.relpath(job.file.absolute(), path.absolute().parent)).as_posix()
            manifest.append({"file": relative, **{k: v for k, v in line.items() if k not in ("file", "key")}})
        write_text(manifest_path(path), "".join(json.dumps(line) + "\n" for line in manifest))


def manifest_path(store: Path) -> Path:
    """The manifest that goes with a store."""
    return store.with_name(store.stem + ".manifest.jsonl")


def _import_file(job: _Job) -> dict[str, Any] | DataError:
    """Make the part of one file, if it is not there; returns its line of the manifest, with `key`, or what is bad."""
    sha256 = digest(job.file)
    how: dict[str, Any] = {"prefix": job.prefix, "size": job.size, "coils": job.coils, "version": VERSION}
    given = {} if job.maps is None else {"coil_maps_sha256": digest(maps_file(job.file, job.maps))}
    how |= given
    key = hashlib.sha256(json.dumps([sha256, job.file.stem, how]).encode()).hexdigest()[:32]
    part, record = job.parts / f"{key}.h5", job.parts / f"{key}.json"
    if (kept := _kept(part, record, key)) is not None:
        return {"file": str(job.file), **kept}
    line: dict[str, Any] = {"key": key, "sha256": sha256, **given, "slices": 0, **{fact: [] for fact in FACTS}}
    try:
        with StoreWriter(part, {}) as writer:
            for scan in import_scans([job.file], job.maps):
                _add(writer, scan, job, line)
        write_text(record, json.dumps({"line": line, "sha256": _digest_of(part, line)}))
    except DataError as error:
        return error
    return {"file": str(job.file), **line}


def _kept(part: Path, record: Path, key: str) -> dict[str, Any] | None:
    """The line of a part that an earlier run made, if both are as they were written."""
    if not (part.is_file() and record.is_file()):
        return None
    try:
        held = json.loads(record.read_text(encoding="utf-8"))
        line, written = held["line"], held["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return line if line.get("key") == key and written == _digest_of(part, line) else None


def _digest_of(part: Path, line: dict[str, Any]) -> str:
    """SHA-256 of a part and its line."""
    return hashlib.sha256(f"{digest(part)} {json.dumps(line)}".encode()).hexdigest()


def _add(writer: StoreWriter, scan: Scan, job: _Job, line: dict[str, Any]) -> None:
    """Store one slice, and note what there is to know of it; nothing of it stays in memory."""
    done = prepare(scan, job.size, job.coils)
    writer.add(job.prefix + scan.name, done.scan.k_space, done.scan.mask, done.maps, done.noise_std)
    residual = None if math.isnan(done.residual) else done.residual
    for fact, value in zip(FACTS, (done.scan.provenance["scale"], done.noise_std, residual)):
        line[fact].append(value)
    if taken := scan.provenance.get("taken_for"):
        line["taken_for"] = taken
    line |= {"slices": line["slices"] + 1, "shape": list(done.scan.k_space.shape), "whitened": scan.noise is not None}


def _smallest(file: Path, maps: Path | None) -> tuple[int, int, int, list[str]] | DataError:
    """Coils, least height and least width of a file's slices, and remarks on them; or what is bad."""
    shapes, texts = [], {}
    try:
        for scan in scans_as_they_are(file, maps):
            check_calibration(scan)
            shapes.append(scan.k_space.shape)
            texts.update(dict.fromkeys(remarks(scan)))
    except DataError as error:
        return error
    coils, height, width = map(min, zip(*shapes))
    return coils, height, width, list(texts)


def _check_coils(files: Sequence[Path], counts: Sequence[int], coils: int | None) -> None:
    """Refuse files of different numbers of coils, unless all have enough to be compressed to `coils`."""
    (fewest, small), (most, large) = (choose(zip(counts, files)) for choose in (min, max))
    if coils is None and fewest != most:
        remedy = f"compress all to the same number (--coils {fewest}), or make two stores"
        raise DataError(f"{large}: has {most} coils, {small} has {fewest}; {remedy}")
    if coils is not None and coils > fewest:
        raise DataError(f"{small}: has {fewest} coils, --coils asks for {coils}; ask for at most {fewest}")


def _in_parallel(work: Callable[[Any], Result], items: Sequence[Any], workers: int, label: str) -> Iterator[Result]:
    """Results in the order of the items, with a progress bar. Every worker computes on one thread, for equal bits."""
    if workers == 1 or len(items) == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from track(map(work, items), label, total=len(items))
        finally:
            torch.set_num_threads(threads)
        return
    pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), torch.set_num_threads, (1,))
    try:
        yield from track(pool.map(work, items), label, total=len(items))
    except BrokenProcessPool:
        raise DataError("a worker ended, probably for want of memory; use fewer (--workers)") from None
    finally:
        pool.shutdown(cancel_futures=True)
