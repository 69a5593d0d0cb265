"""How fast raw k-space is imported, against reading it and against an older version, and how much memory that takes.

    git worktree add OLD 19f72b4
    python benchmarks/speed/raw_import.py FOLDER --before OLD/src [--count 10] [--rounds 5] [--output OUT.json]

FOLDER is made and removed: fastMRI files of 50 slices of 256 × 256 from 16 coils, every third column beyond 24 centre
ones, a disc in birdcage coils with noise. Each row is a process of its own on one thread, the versions in alternation.
Told are the seconds of the processor, the least of all rounds and their median, and of the clock the least: on a busy
machine the clock tells of others. The files were just written, so "h5py" reads from memory what the disk has to give
the first time.

    h5py            data are read, nothing else
    without maps    read, scaled, fitted, written to a store
    with maps       `msm acquire`: a first reading, ESPIRiT maps, noise level, hashes, manifest, the store put together
    maps            ESPIRiT maps of slices that are in memory
    small items     a store of 8 × 8 pixels an item, of the library and by h5py item by item
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

import msm
from msm import MultiCoil
from msm.data.acquire import simulate_scan
from msm.data.store import StoreWriter
from msm.raw.coil_maps import espirit_maps
from msm.raw.import_store import import_store
from msm.raw.read_through import ReadThrough
from msm.raw.readers import import_scans
from msm.raw.scan import fit
from msm.system.files import write_text

SIZE, COILS, SLICES = 256, 16, 50
ITEMS = 100_000
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
    assert source.maps is not None
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


def with_maps(files: list[Path], out: Path) -> None:
    import_store(ReadThrough(files), out, size=(SIZE, SIZE))


def small_items(files: list[Path], out: Path) -> None:
    values, mask = torch.randn(1, 8, 8), torch.arange(8).remainder(2).bool().expand(1, 8, 8)
    with StoreWriter(out, {}) as store:
        for i in range(ITEMS):
            store.add(f"item {i}", values, mask, None, 0.1)


def small_items_h5py(files: list[Path], out: Path) -> None:
    values, mask = torch.randn(1, 8, 8).numpy(), np.arange(8).repeat(8).reshape(1, 8, 8) % 2 > 0
    how = {"compression": "lzf", "shuffle": True, "fletcher32": True, "maxshape": (None, 1, 8, 8)}
    with h5py.File(out, "w", libver="v110") as file:
        fields = [
            file.create_dataset(n, (0, 1, 8, 8), t, chunks=(1, 1, 8, 8), **how) for n, t in (("v", "f4"), ("m", "?"))
        ]
        for name, kind in (("n", h5py.string_dtype()), ("s", "f4")):
            fields.append(file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(1024,)))
        for i in range(ITEMS):
            for field, item in zip(fields, (values, mask, f"item {i}", 0.1)):
                field.resize(i + 1, axis=0)
                field[-1] = item


def maps_alone(scans: list) -> None:
    for scan in scans:
        espirit_maps(scan)


def work_on(row: str, folder: Path) -> dict[str, float]:
    """Do the work of a row in this process."""
    torch.set_num_threads(1)
    files, out = sorted(folder.glob("scan*.h5")), folder / "out.h5"
    given = ([fit(scan, (SIZE, SIZE)) for scan in import_scans(files)],) if row == "maps" else (files, out)
    processor, clock = time.process_time(), time.perf_counter()
    ROWS[row](*given)
    found = {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock}
    out.unlink(missing_ok=True)
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


ROWS: dict[str, Callable[..., None]] = {
    "h5py": read,
    "without maps": without_maps,
    "with maps": with_maps,
    "maps": maps_alone,
    "small items": small_items,
    "small items by h5py": small_items_h5py,
}
ALONE = ("h5py", "small items by h5py")  # are of no version


def measure(row: str, folder: Path, source: Path) -> dict[str, float]:
    """A row by the version in a source folder, in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--row", row]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(found: list[dict[str, float]], count: int, gb: float) -> dict[str, float]:
    """Of all rounds of a row."""
    processor = [each["processor"] for each in found]
    told = {"processor_s": min(processor), "processor_median_s": statistics.median(processor)}
    told |= {"clock_s": min(each["clock"] for each in found), "peak_gb": max(each["peak_gb"] for each in found)}
    told |= {"processor_s_each": told["processor_s"] / count, "gb_per_second": gb / told["processor_s"]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10, help="slices")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="source folder of another version")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("raw_import.json"))
    options = parser.parse_args()
    if options.row:
        print(json.dumps(work_on(options.row, options.folder)))
        return
    versions = {"before": options.before} if options.before else {}
    versions["after"] = Path(msm.__file__).parents[1]
    options.folder.mkdir(parents=True)
    found: dict[str, dict[str, list]] = {row: {} for row in options.rows}
    try:
        write_files(options.folder, options.count)
        for _ in range(options.rounds):
            for row in options.rows:
                for version, source in {"after": versions["after"]}.items() if row in ALONE else versions.items():
                    found[row].setdefault(version, []).append(measure(row, options.folder, source))
    finally:
        shutil.rmtree(options.folder)
    rows: dict[str, dict] = {}
    for row, by_version in found.items():
        count, gb = (
            (ITEMS, ITEMS * 320 / 1e9) if "small" in row else (options.count, options.count * COILS * SIZE**2 * 8 / 1e9)
        )
        rows[row] = {version: summary(each, count, gb) for version, each in by_version.items()}
        if len(by_version) == 2:
            rows[row]["times"] = rows[row]["before"]["processor_s"] / rows[row]["after"]["processor_s"]
    result = {"slices": options.count, "items": ITEMS, "rounds": options.rounds, "cores": os.cpu_count(), "rows": rows}
    write_text(options.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
