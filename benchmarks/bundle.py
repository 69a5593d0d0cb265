"""Put a trained run into the package: half-precision weights, and its config with the demo's sampler.

    python benchmarks/bundle.py runs/brain src/msm/assets/brain --steps 15 --draws 4 --eta 1

The sampler's settings are those that `msm demo` and `reconstruction.py` take.
"""

import argparse
import shutil
from pathlib import Path

import torch

from msm.config import dump_config, load_config
from msm.network import ADMNetwork
from msm.report import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--eta", type=float, default=0.85)
    options = parser.parse_args()
    ADMNetwork.load(options.run / "weights").save(options.folder, dtype=torch.float16)
    shutil.copy(options.run / "weights" / "denoiser.json", options.folder)
    config = load_config(options.run / "config.yaml")
    setting = config.setting.model_copy(update={"save_dir": Path("runs/demo"), "dataset_dir": None})
    sampler = {"steps": options.steps, "draws": options.draws, "samples": options.samples, "eta": options.eta}
    bounded = config.diffusion.parametrisation == "sense"  # rounding of ε̂ is multiplied by σ_t
    sampler |= {"batch_size": 16, "mixed_precision": config.train.mixed_precision if bounded else "no"}
    sample = config.sample.model_copy(update=sampler)
    bundled = config.model_copy(update={"setting": setting, "sample": sample})
    write_text(options.folder / "config.yaml", dump_config(bundled))


if __name__ == "__main__":
    main()
