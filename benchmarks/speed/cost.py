"""What sampling and training cost: time beside bare network calls, memory, and how both grow.

    python benchmarks/speed/cost.py [OUT.json] [--sections step training batch growth patches published] [--pairs 4]

Each measurement runs in a process of its own, on one thread. CPU: time is CPU time (a busy machine does not count),
memory is the growth of the resident set at its peak. CUDA: synchronised wall time, `torch.cuda.max_memory_allocated`.
Two things that are compared run in turn (A B A B …); of each both minimum and median are kept.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msm import (
    ADMNetwork,
    BoxMasks,
    CartesianMasks,
    Identity,
    Masks,
    Measurement,
    MeasurementStore,
    MultiCoil,
    PartialDenoiser,
    Sampler,
    Trainer,
    VPSchedule,
    generate,
    noiseless_loss,
)
from msm.config.trained import TrainConfig
from msm.data.store import StoreWriter
from msm.denoiser import PARAMETRISATIONS
from msm.sampling import Score
from msm.system.memory import keep_memory
from msm.transforms import Transform

RECORDS = Path(__file__).parents[2] / "docs/studies/results/cost.json"
RUN = 4  # steps of the runs whose steps are compared with network calls
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


class Published(TypedDict):
    """A full-size network; 0 coils: of photos."""

    image_size: int
    in_channels: int
    channel_mult: tuple[int, ...]
    coils: int


PUBLISHED: dict[str, Published] = {  # SPEC §8
    "ffhq_128": {"image_size": 128, "in_channels": 3, "channel_mult": (1, 1, 2, 3, 4), "coils": 0},
    "fastmri_256": {"image_size": 256, "in_channels": 2, "channel_mult": (1, 1, 2, 2, 4, 4), "coils": 8},
}


@dataclass(frozen=True)
class Case:
    """What is sampled; 0 coils: photos."""

    size: int = 64
    coils: int = 0
    batch: int = 8
    draws: int = 3
    parametrisation: str = "epsilon"
    score: Score = "average"
    acceleration: int = 4


class NoNetwork(nn.Module):
    """Takes no time: what is left of a step is the sampler's own."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The input itself."""
        return u


def five_million(case: Case) -> ADMNetwork:
    attention = (case.size // 4, case.size // 8)
    return ADMNetwork(case.size, 2 if case.coils else 3, 32, 1, (1, 2, 3, 4), attention, 32)


def one_for_size(case: Case) -> ADMNetwork:
    """As the published ones: more levels for larger images, attention at 16 and 8 px."""
    levels = (1,) * round(math.log2(case.size / 32)) + (2, 2, 2)
    return ADMNetwork(case.size, 2 if case.coils else 3, 32, 1, levels, (16, 8), 32)


def seconds(work: Callable[[], object]) -> float:
    clock = time.perf_counter if ON_GPU else time.process_time
    if ON_GPU:
        torch.cuda.synchronize()
    started = clock()
    work()
    if ON_GPU:
        torch.cuda.synchronize()
    return clock() - started


def in_turn(pairs: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each, after one call that does not count."""
    for work in works:
        work()
    return [list(column) for column in zip(*[[seconds(work) for work in works] for _ in range(pairs)])]


def ratio(ours: list[float], bare: list[float]) -> dict[str, float]:
    of_minima = min(ours) / min(bare)
    return {"ratio_median": statistics.median(a / b for a, b in zip(ours, bare)), "ratio_of_minima": of_minima}


def resident_mb() -> float:
    """Largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_mb(work: Callable[[], object], before: float | None = None) -> float:
    """CUDA: all that is allocated at the peak. CPU: growth since `before`, now if None."""
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() / 2**20
    before = resident_mb() if before is None else before
    work()
    return resident_mb() - before


def apart(measure: Callable[..., dict], *arguments: object) -> dict:
    """Measure in a process of its own, which starts as this one is: it has computed nothing."""
    if ON_GPU:  # a CUDA context does not survive a fork
        torch.cuda.empty_cache()
        return measure(*arguments)
    with multiprocessing.get_context("fork").Pool(1, keep_memory) as pool:
        return pool.apply(measure, arguments)


def unit_maps(batch: int, coils: int, size: int) -> torch.Tensor:
    maps = torch.randn(batch, coils, size, size, dtype=torch.complex64)
    return (maps / maps.abs().square().sum(1, keepdim=True).sqrt()).to(DEVICE)


def sampler(case: Case, network: nn.Module, steps: int = 2) -> Callable[[], torch.Tensor]:
    """A run of some steps: its last one draws no noise, so one step would be too few to tell what a step costs."""
    denoiser = PartialDenoiser(network, VPSchedule(), PARAMETRISATIONS[case.parametrisation]()).to(DEVICE).eval()
    transform: Transform = Identity()
    masks: Masks = BoxMasks(case.size)
    shape = (3, case.size, case.size)
    if case.coils:
        transform = MultiCoil(unit_maps(case.batch, case.coils, case.size))
        masks = CartesianMasks(case.size, case.acceleration, case.size * 5 // 64)
        shape = (case.coils, case.size, case.size)
    how, seeds = Sampler(steps, case.draws, score=case.score), range(case.batch)
    return lambda: generate(denoiser, shape, seeds=seeds, transform=transform, masks=masks, sampler=how)


def network_calls(case: Case, network: nn.Module, calls: int) -> Callable[[], None]:
    u = torch.randn(case.batch, 2 if case.coils else 3, case.size, case.size, device=DEVICE)
    t = torch.full((case.batch,), 500.0, device=DEVICE)

    @torch.no_grad()
    def run() -> None:
        for _ in range(calls):
            network(u, t)

    return run


def step(case: Case, pairs: int) -> dict:
    """A sampling step beside its network calls: directly, and as the calls plus the step without its network."""
    torch.manual_seed(0)
    network = five_million(case).to(DEVICE).eval()
    ours, bare = in_turn(pairs, sampler(case, network, RUN), network_calls(case, network, RUN * case.draws))
    (own,) = in_turn(pairs, sampler(case, NoNetwork(), 5 * RUN))
    return {
        "seconds_per_step": statistics.median(ours) / RUN,
        **ratio(ours, bare),
        "ratio_by_parts": 1 + min(own) / (5 * min(bare)),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def write_store(path: Path, case: Case, count: int = 32) -> Path:
    masks = CartesianMasks(case.size, 4, 5) if case.coils else BoxMasks(case.size)
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {}) as writer:
        for i in range(count):
            dtype = torch.complex64 if case.coils else torch.float32
            values = torch.randn(case.coils or 3, case.size, case.size, dtype=dtype, generator=generator)
            maps = values / values.abs().square().sum(0).sqrt() if case.coils else None
            writer.add(f"item{i}", values, masks.sample(1, generator)[0], maps, 0.0)
    return path


def training(case: Case, pairs: int) -> dict:
    """A training step from a store on disk beside forward, backward and optimiser of the bare network."""
    torch.manual_seed(0)
    network = five_million(case)
    masks = CartesianMasks(case.size, 4, 5) if case.coils else BoxMasks(case.size)
    denoiser = PartialDenoiser(network, VPSchedule(), PARAMETRISATIONS[case.parametrisation](), masks)
    u, t = torch.randn(case.batch, network.in_channels, case.size, case.size), torch.full((case.batch,), 500.0)
    u, t = u.to(DEVICE), t.to(DEVICE)
    config = TrainConfig(images=10**6, batch_size=case.batch, lr=1e-5, augment=True, submask_share=0.5)
    with tempfile.TemporaryDirectory() as folder:
        store = MeasurementStore(write_store(Path(folder) / "store.h5", case))
        trainer = Trainer(denoiser, store, config)
        batches = iter(trainer._loader())

        def bare() -> None:
            network(u, t).square().mean().backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)

        denoiser.train()
        ours, alone = in_turn(pairs, lambda: trainer._optimise(next(batches)), bare)
    return {"images_per_second": case.batch / statistics.median(ours), **ratio(ours, alone)}


def batch(case: Case, pairs: int) -> dict:
    """One batch beside as many batches of one."""
    torch.manual_seed(0)
    network = five_million(case).to(DEVICE).eval()
    single = sampler(Case(**{**asdict(case), "batch": 1}), network)

    def one_by_one() -> None:
        for _ in range(case.batch):
            single()

    alone, together = in_turn(pairs, one_by_one, sampler(case, network))
    speed_up = ratio(alone, together)
    return {"images": case.batch, "speed_up_median": speed_up["ratio_median"], "speed_up": speed_up["ratio_of_minima"]}


def point(case: Case, pairs: int) -> dict:
    """Time and memory of a step, and of a step without its network."""
    torch.manual_seed(0)
    network = one_for_size(case).to(DEVICE).eval()
    run = sampler(case, network)
    memory = peak_mb(run)
    times, own = in_turn(pairs, run, sampler(case, NoNetwork()))
    return {"seconds": min(times) / 2, "seconds_without_network": min(own) / 2, "peak_mb": memory}


GROWTH = {  # what grows, its values, and the rest
    "size": ((64, 128, 256), Case(coils=4, batch=2, draws=2)),
    "coils": ((1, 2, 4, 8, 16), Case(batch=4, draws=2)),
    "batch": ((1, 2, 4, 8, 16), Case(coils=4, draws=2)),
    "draws": ((1, 2, 4, 8), Case(coils=4, batch=4)),
    "acceleration": ((2, 4, 8), Case(coils=4, batch=2, score="chain")),  # K covers, K + 1 network calls
}


def growth(pairs: int) -> dict:
    """Points, and by which power of the quantity time and memory grow between the first and the last."""
    result = {}
    for name, (values, rest) in GROWTH.items():
        rows = []
        for value in values:
            rows.append({name: value, **apart(point, Case(**{**asdict(rest), name: value}), pairs)})
            print(name, rows[-1], flush=True)
        first, last = rows[0], rows[-1]
        decades = math.log(values[-1] / values[0]) * (2 if name == "size" else 1)  # size: per pixel
        powers = {key: math.log(last[key] / first[key]) / decades for key in first if key != name}
        result[name] = {"fixed": asdict(rest), "rows": rows, "powers": powers}
    return result


PATCHES = {1: (32, (1, 1, 2, 4)), 2: (32, (1, 2, 4)), 4: (64, (1, 2))}  # the same levels but for the first ones


def patches(size: int, pairs: int) -> dict:
    """A call and a training step of a network for photos of 64 px that begins at patches of that size."""
    torch.manual_seed(0)
    channels, levels = PATCHES[size]
    case, network = Case(64), ADMNetwork(64, 3, channels, 1, levels, (16, 8), 32, patch_size=size).to(DEVICE)
    call, train = in_turn(pairs, network_calls(case, network.eval(), 1), training_step(case, network))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds_per_call": min(call) / case.batch,
        "seconds_per_training_image": min(train) / case.batch,
    }


def matmul_flops(dtype: torch.dtype) -> float:
    """Operations a second in a large matrix product: what the device can do at best."""
    n = 8192 if ON_GPU else 1024
    a = torch.randn(n, n, device=DEVICE, dtype=dtype)
    (times,) = in_turn(5, lambda: a @ a)
    return 2 * n**3 / min(times)


def published(name: str, precision: str, batch_size: int, compiled: bool, pairs: int) -> dict:
    """A full-size network: calls, the sampler around them, a training step; and the memory of both."""
    torch.manual_seed(0)
    nothing, of = resident_mb(), PUBLISHED[name]
    case = Case(of["image_size"], of["coils"], batch_size, draws=1)
    network = ADMNetwork(
        image_size=of["image_size"],
        in_channels=of["in_channels"],
        num_channels=128,
        num_res_blocks=2,
        channel_mult=of["channel_mult"],
        attention_resolutions=(32, 16, 8),
        num_head_channels=64,
    )
    network = network.to(DEVICE).eval()
    half = precision != "float32"
    if half and ON_GPU:
        network.to(memory_format=torch.channels_last)
    call = network_calls(case, network, 1)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
        memory = peak_mb(sampler(case, network), nothing)
    with FlopCounterMode(display=False) as counter:
        call()
    if compiled:
        network.compile(dynamic=False)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
        ours, bare = in_turn(pairs, sampler(case, network), network_calls(case, network, 2))
        (own,) = in_turn(3, sampler(case, NoNetwork()))
        result = {
            "batch": batch_size,
            "parameters": sum(p.numel() for p in network.parameters()),
            "calls_per_second": 2 * batch_size / min(bare),
            "images_per_second": 2 * batch_size / (600 * min(ours)),
            **ratio(ours, bare),
            "ratio_by_parts": 1 + min(own) / min(bare),
            "sampling_peak_mb": memory,
        }
        train = training_step(case, network)
        result["training_peak_mb"] = peak_mb(train, nothing)
        (times,) = in_turn(1, train)
    flops = counter.get_total_flops()
    best = matmul_flops(torch.bfloat16 if half else torch.float32)
    result |= {"training_images_per_second": batch_size / min(times), "flops_per_call": flops / batch_size}
    return result | {"fraction_of_matrix_product": 2 * flops / min(bare) / best, "matrix_product_flops": best}


def training_step(case: Case, network: nn.Module) -> Callable[[], None]:
    denoiser = PartialDenoiser(network, VPSchedule()).to(DEVICE).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    masks = CartesianMasks(case.size, 4, 20) if case.coils else BoxMasks(case.size)
    maps = unit_maps(case.batch, case.coils, case.size) if case.coils else None
    dtype = torch.complex64 if case.coils else torch.float32
    values = torch.randn(case.batch, case.coils or 3, case.size, case.size, dtype=dtype, device=DEVICE)
    measurement = Measurement(values, masks.sample(case.batch).to(DEVICE), maps)
    t = torch.full((case.batch,), 500.0, device=DEVICE)

    def run() -> None:
        noiseless_loss(denoiser, measurement, t).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def all_published(pairs: int) -> dict:
    ways = [("float32", 1, False)]
    if ON_GPU:
        ways += [("float32", 16, False), ("bf16", 16, False), ("bf16", 16, True)]
    result = {}
    for name in PUBLISHED:
        for precision, size, compiled in ways:
            key = f"{name} {precision}{' compiled' if compiled else ''}, batch {size}"
            result[key] = apart(published, name, precision, size, compiled, pairs)
            print(key, result[key], flush=True)
    return result


def each(measure: Callable[..., dict], cases: dict[str, Case], pairs: int) -> dict:
    result = {}
    for name, case in cases.items():
        result[name] = apart(measure, case, pairs)
        print(name, result[name], flush=True)
    return result


PHOTOS, COILS = Case(64), Case(128, coils=8)
SENSE = Case(128, coils=8, parametrisation="sense")
SMALL = {"photos_64": PHOTOS, "mri_8_coils_64_epsilon": Case(coils=8)}
SMALL |= {"mri_8_coils_64_sense": Case(coils=8, parametrisation="sense")}
STEPS = {"photos_64": PHOTOS, "mri_8_coils_128": COILS, "mri_8_coils_128_sense": SENSE}
BATCHES = {"photos_64": Case(batch=16), "mri_8_coils_64": Case(coils=8, batch=16)}
SECTIONS = {
    "step": lambda pairs: each(step, STEPS, pairs),
    "training": lambda pairs: each(training, SMALL, pairs),
    "batch": lambda pairs: each(batch, BATCHES, -(-pairs // 2)),
    "growth": lambda pairs: growth(-(-pairs // 2)),
    "patches": lambda pairs: {f"{size} px": apart(patches, size, pairs) for size in PATCHES},
    "published": lambda pairs: all_published(-(-pairs // 2)),
}


def machine() -> dict[str, object]:
    name = torch.cuda.get_device_name() if ON_GPU else platform.processor() or platform.machine()
    if not ON_GPU and (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {"device": name, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=RECORDS)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--pairs", type=int, default=4, help="measurements of each; half as many where one is long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.sections:  # a section at a time: the others stay as they were measured before
        started = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        result[name] = SECTIONS[name](arguments.pairs)
        spent = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - started
        result["machine"] = {**result.get("machine", {}), name: {**machine(), "cpu_seconds": round(spent)}}
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(partial, arguments.out)


if __name__ == "__main__":
    main()
