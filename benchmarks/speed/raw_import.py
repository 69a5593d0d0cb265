"""How fast raw k-space is imported, against reading it, and how much memory that takes.

    python benchmarks/speed/raw_import.py FOLDER [--count 1000] [--output OUT.json]

FOLDER is made and removed: fastMRI files of 50 slices of 256 × 256 from 16 coils, every third column beyond 24 centre
ones, a disc in birdcage coils with noise. Each row is a process of its own, which says what memory it took at most.
The files were just written, so "h5py" reads from memory what the disk has to give the first time.

    h5py            data are read, nothing else
    without maps    read, scaled, fitted, written to a store
    with maps       `msm acquire`: also ESPIRiT maps, noise level, hashes, manifest, and the store put together
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from msm import MultiCoil
from msm.data.acquire import simulate_scan
from msm.data.store import StoreWriter
from msm.raw.import_store import import_store
from msm.raw.readers import import_scans
from msm.raw.scan import fit
from msm.system.files import write_text

SIZE, COILS, SLICES = 256, 16, 50
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>256</x><y>256</y><z>1</z></matrixSize>
<fieldOfView_mm><x>256</x><y>256</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>256</x><y>256</y><z>1</z></matrixSize>
<fieldOfView_mm><x>256</x><y>256</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits/></encoding></ismrmrdHeader>"""


def write_files(folder: Path, count: int) -> None:
    """Write the files; slices differ in noise only."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    disc = ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (0.8 + 0.2 * torch.cos(9 * x) * torch.sin(7 * y))
    source = simulate_scan("disc", disc, COILS, seed=0)
    k_space = MultiCoil(source.maps[None]).forward(source.image[None])[0].numpy()
    kept = (np.arange(SIZE) % 3 == 0) | (abs(np.arange(SIZE) - SIZE // 2) < 12)
    rng = np.random.default_rng(0)
    for start in range(0, count, SLICES):
        with h5py.File(folder / f"scan{start // SLICES:04d}.h5", "w") as file:
            file["ismrmrd_header"] = HEADER
            file["mask"] = kept.astype(np.float32)
            data = file.create_dataset("kspace", (min(SLICES, count - start), *k_space.shape), np.complex64)
            for i in range(len(data)):
                noise = rng.standard_normal((*k_space.shape, 2), np.float32).view(np.complex64)[..., 0]
                data[i] = (k_space + 0.01 * noise) * kept


def read(files: list[Path], out: Path) -> None:
    for path in files:
        with h5py.File(path) as file:
            for i in range(len(file["kspace"])):
                file["kspace"][i]


def without_maps(files: list[Path], out: Path) -> None:
    with StoreWriter(out, {}) as store:
        for scan in import_scans(files):
            fitted = fit(scan, (SIZE, SIZE))
            store.add(fitted.name, fitted.k_space, fitted.mask, None, 0.0)


def with_maps(files: list[Path], out: Path, workers: int) -> None:
    import_store(files, out, size=(SIZE, SIZE), workers=workers)


def _measured(work: Callable[..., None], arguments: tuple, result) -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    work(*arguments)
    row = {"seconds": time.perf_counter() - start}
    for name, who in (("peak_gb", resource.RUSAGE_SELF), ("largest_child_gb", resource.RUSAGE_CHILDREN)):
        row[name] = (
            resource.getrusage(who).ru_maxrss * 1024 / 1e9
        )  # of a new process at least that of the one it came from
    result.put(row)


def measure(work: Callable[..., None], *arguments: object) -> dict[str, float]:
    """Time and peak memory of some work, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=_measured, args=(work, arguments, result))
    process.start()
    found = result.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="slices")
    parser.add_argument("--workers", type=int, nargs="*", default=[1], help="none: not with maps")
    parser.add_argument("--output", type=Path, default=Path("raw_import.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    try:
        measure(write_files, options.folder, options.count)
        files = sorted(options.folder.glob("scan*.h5"))
        data = options.count * COILS * SIZE**2 * 8 / 1e9
        rows = {"h5py": measure(read, files, options.folder)}
        rows["without maps"] = measure(without_maps, files, options.folder / "plain.h5")
        (options.folder / "plain.h5").unlink()
        for workers in options.workers:
            out = options.folder / "store.h5"
            rows[f"with maps, {workers} workers"] = measure(with_maps, files, out, workers)
            out.unlink()
    finally:
        shutil.rmtree(options.folder)
    for row in rows.values():
        row |= {"gb_per_second": data / row["seconds"], "seconds_a_slice": row["seconds"] / options.count}
    result = {"slices": options.count, "gb": data, "cores": os.cpu_count(), "rows": rows}
    write_text(options.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
