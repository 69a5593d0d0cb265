"""What a training step costs beyond forward, backward and optimiser of the bare network.

    python benchmarks/training_overhead.py [OUT.json]

Photos and 8-coil MRI at 64 px, a network of about 4.5M parameters, batches of 8 from a store on disk. CPU time of this
process (`time.process_time`: a busy machine does not count), on one thread, in turn, median of pairs.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from msm import ADMNetwork, BoxMasks, CartesianMasks, PartialDenoiser, VPSchedule
from msm.data.store import MeasurementStore, StoreWriter
from msm.settings import TrainConfig
from msm.training import Trainer

BATCH, PAIRS, SIZE, COUNT = 8, 7, 64, 32


def seconds(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def write_store(path: Path, masks, coils: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {}) as writer:
        for i in range(COUNT):
            dtype = torch.complex64 if coils else torch.float32
            values = torch.randn(coils or 3, SIZE, SIZE, dtype=dtype, generator=generator)
            maps = values / values.abs().square().sum(0).sqrt() if coils else None
            writer.add(f"item{i}", values, masks.sample(1, generator)[0], maps, 0.0)
    return path


def measure(folder: Path, masks, coils: int, parametrisation: str) -> dict[str, float]:
    channels = 2 if coils else 3
    network = ADMNetwork(SIZE, channels, 32, 1, (1, 2, 3, 4), (16, 8), 32)
    denoiser = PartialDenoiser(network, VPSchedule(), parametrisation)
    store = MeasurementStore(write_store(folder / "store.h5", masks, coils))
    config = TrainConfig(images=10**6, batch_size=BATCH, lr=1e-5, augment=True, submask_share=0.5)
    trainer = Trainer(denoiser, store, masks, folder / "run", config)
    batches = iter(trainer._loader())
    u, t = torch.randn(BATCH, channels, SIZE, SIZE), torch.full((BATCH,), 500.0)

    def step() -> None:
        trainer._optimise(next(batches))

    def bare() -> None:
        network(u, t).square().mean().backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    denoiser.train()
    step(), bare()
    pairs = [(seconds(step), seconds(bare)) for _ in range(PAIRS)]
    return {
        "seconds_per_step": statistics.median(s for s, _ in pairs),
        "images_per_second": BATCH / statistics.median(s for s, _ in pairs),
        "ratio_to_bare_step": statistics.median(s / b for s, b in pairs),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    columns, result = CartesianMasks(SIZE, 4, 5), {}
    for name, masks, coils, parametrisation in (
        ("photos", BoxMasks(SIZE), 0, "epsilon"),
        ("mri_8_coils_epsilon", columns, 8, "epsilon"),
        ("mri_8_coils_sense", columns, 8, "sense"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            result[name] = measure(Path(folder), masks, coils, parametrisation)
    text = json.dumps(result | {"threads": torch.get_num_threads(), "torch": torch.__version__}, indent=1)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
