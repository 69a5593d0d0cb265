"""What a sampling step costs beyond its network calls, batch of 8.

    python benchmarks/sampler_overhead.py [OUT.json]

For photos at 64 px and 8-coil MRI at 64 px, one network of about 4.5M parameters: the CPU time of `generate` over
that of the same number of bare network calls on the same inputs, in turn, median of several pairs.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from msm import ADMNetwork, BoxMasks, CartesianMasks, Identity, MultiCoil, PartialDenoiser, VPSchedule, generate

BATCH, STEPS, DRAWS, PAIRS, SIZE = 8, 2, 3, 7, 64


def seconds(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(channels: int, parametrisation: str, transform, masks, shape) -> dict[str, float]:
    network = ADMNetwork(
        image_size=SIZE,
        in_channels=channels,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 2, 3, 4),
        attention_resolutions=(16, 8),
        num_head_channels=32,
    ).eval()
    denoiser = PartialDenoiser(network, VPSchedule(), parametrisation).eval()
    u, t = torch.randn(BATCH, channels, SIZE, SIZE), torch.full((BATCH,), 500.0)

    @torch.no_grad()
    def calls() -> None:
        for _ in range(STEPS * DRAWS):
            network(u, t)

    def sample() -> None:
        generate(denoiser, transform, masks, shape, seeds=range(BATCH), steps=STEPS, draws=DRAWS)

    calls(), sample()
    pairs = [(seconds(sample), seconds(calls)) for _ in range(PAIRS)]
    return {
        "seconds_per_step": statistics.median(s for s, _ in pairs) / STEPS,
        "ratio_to_network_calls": statistics.median(s / c for s, c in pairs),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def main() -> None:
    torch.manual_seed(0)
    maps = torch.randn(BATCH, 8, SIZE, SIZE, dtype=torch.complex64)
    transform = MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())
    columns = CartesianMasks(SIZE, 4, 5)
    result = {
        "photos": measure(3, "epsilon", Identity(), BoxMasks(SIZE), (3, SIZE, SIZE)),
        "mri_8_coils_epsilon": measure(2, "epsilon", transform, columns, (8, SIZE, SIZE)),
        "mri_8_coils_sense": measure(2, "sense", transform, columns, (8, SIZE, SIZE)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n")


if __name__ == "__main__":
    main()
