"""What it costs that nothing is lost or wrong in silence: steps beside their network calls, opening a large store.

    python benchmarks/speed/guards.py [OUT.json] [--pairs 3]

Sampling: a run of a command, of four steps: its images are looked through and kept with a digest, once in so few.
Training: steps from a store whose sums are checked. Store: 10⁵ items whose names and provenance are. CPU time, each in
a process of its own, on one thread. The table of docs/studies/speed.md is written anew where OUT.json is the record.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cost import (
    COILS,
    PHOTOS,
    RECORDS,
    RUN,
    SMALL,
    Case,
    NoNetwork,
    apart,
    five_million,
    in_turn,
    machine,
    network_calls,
    ratio,
    training,
    unit_maps,
)
from torch import nn

from msm import BoxMasks, CartesianMasks, PartialDenoiser, VPSchedule
from msm.config.load import load_config
from msm.data.store import MeasurementStore, StoreWriter
from msm.sample.draw import prior_samples
from msm.sample.kept_batches import Parts
from msm.system.files import write_text

RECORD, PAGE = RECORDS.with_name("guards.json"), RECORDS.parents[1] / "speed.md"
ITEMS = 10**5
CASES = {"photos, 64 px": PHOTOS, "8-coil MRI, 128 px": COILS}
TRAINED = {"photos, 64 px": "photos_64", "8-coil MRI, 64 px": "mri_8_coils_64_epsilon"}
HEAD = "| | at most | median | least | by parts |"


def command(case: Case, network: nn.Module, steps: int, folder: Path) -> Callable[[], torch.Tensor]:
    """What `msm sample` does of a batch: draw it, look at it and keep it."""
    masks = CartesianMasks(case.size, 4, case.size * 5 // 64) if case.coils else BoxMasks(case.size)
    denoiser = PartialDenoiser(network, VPSchedule(), masks=masks).eval()
    config = load_config("demo/faces")
    data = config.data.model_copy(update={"image_size": case.size})
    how = {"steps": steps, "draws": case.draws, "count": case.batch, "batch_size": case.batch}
    settings = config.sample.model_copy(update=how)
    maps = unit_maps(case.batch, case.coils, case.size) if case.coils else None

    def run() -> torch.Tensor:
        parts = Parts(folder, "0" * 64)
        images = prior_samples(denoiser, data, settings, maps, keep=parts.keep)
        parts.remove()
        return images

    return run


def sampling(case: Case, pairs: int) -> dict:
    """A run beside its network calls: directly, and as the calls plus the run without its network."""
    torch.manual_seed(0)
    network = five_million(case).eval()
    with tempfile.TemporaryDirectory() as folder:
        run = command(case, network, RUN, Path(folder))
        ours, bare = in_turn(pairs, run, network_calls(case, network, RUN * case.draws))
        (own,) = in_turn(pairs, command(case, NoNetwork(), 5 * RUN, Path(folder)))
    return {**ratio(ours, bare), "ratio_by_parts": 1 + min(own) / (5 * min(bare))}


def opening(pairs: int) -> dict:
    """A store of 10⁵ items, opened and three items read."""
    with tempfile.TemporaryDirectory() as folder:
        path, value = Path(folder) / "store.h5", torch.ones(1, 4, 4)
        with StoreWriter(path, {}) as writer:
            for n in range(ITEMS):
                writer.add(f"item{n}", value * n, value > 0, None, 0.0)

        def work() -> None:
            MeasurementStore(path).batch([ITEMS - 1, 0, ITEMS // 2])

        clock = time.perf_counter()
        work()
        by_clock = time.perf_counter() - clock
        (found,) = in_turn(4 * pairs, work)
        return {"items": ITEMS, "seconds": min(found), "median_s": statistics.median(found), "first_clock_s": by_clock}


def rows(found: dict[str, dict]) -> list[str]:
    """The table of the page."""
    lines = [HEAD, "|---|---|---|---|---|"]
    for kind, limit in (("sampling", "1.02"), ("training", "1.10")):
        for name, each in found[kind].items():
            numbers = (each["ratio_median"], each["ratio_of_minima"], each.get("ratio_by_parts"))
            cells = ["–" if number is None else f"{number:.3f}" for number in numbers]
            lines.append(f"| {kind}: {name} | {limit} | {' | '.join(cells)} |")
    store = found["store"]
    return [*lines, f"| a store of 10⁵ items, s | 1 | {store['median_s']:.2f} | {store['seconds']:.2f} | – |"]


def write_page(found: dict[str, dict]) -> None:
    """Put the table in place of the one that the page has."""
    before, table, after = PAGE.read_text(encoding="utf-8").partition(HEAD)
    assert table
    rest = after.partition("\n\n")[2]
    write_text(PAGE, before + "\n".join(rows(found)) + "\n\n" + rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RECORD)
    parser.add_argument("--pairs", type=int, default=3, help="measurements of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict] = {"machine": machine()}
    began = time.perf_counter()
    measure(found, arguments.pairs)
    found["machine"]["clock_s"] = round(time.perf_counter() - began)
    write_text(arguments.out, json.dumps(found, indent=1) + "\n")
    if arguments.out == RECORD:
        write_page(found)
    print("\n".join(rows(found)))


def measure(found: dict[str, dict], pairs: int) -> None:
    """All of it, into `found`."""
    found["store"] = apart(opening, pairs)
    found["training"] = {name: apart(training, SMALL[key], pairs) for name, key in TRAINED.items()}
    found["sampling"] = {name: apart(sampling, case, pairs) for name, case in CASES.items()}


if __name__ == "__main__":
    main()
