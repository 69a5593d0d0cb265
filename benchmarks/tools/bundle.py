"""Put a trained run into the package: half-precision weights, and its config with preset `best`, or its own sampler.

    python benchmarks/tools/bundle.py runs/brain src/msm/assets/brain "Brains at 64 px, 8 coils, R = 4" --samples 4

Samples are how many are drawn of each measurement.
"""

import argparse
from pathlib import Path

import torch

from msm import ADMNetwork, PartialDenoiser
from msm.config.load import dump_asked, load_config
from msm.system.manifest import write_listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("about", help="what the model is for; `msm configs` lists it")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--own-sampler", action="store_true", help="keep the sampler of the run's config")
    options = parser.parse_args()
    denoiser = PartialDenoiser.load(options.run / "weights")
    denoiser.save(options.folder)
    assert isinstance(denoiser.network, ADMNetwork)
    denoiser.network.save(options.folder, dtype=torch.float16)
    config = load_config(options.run / "config.yaml")
    name = options.folder.name
    places = {"save_dir": Path(f"runs/bundled_{name}"), "pretrained_model_dir": Path(f"bundled:{name}")}
    setting = config.setting.model_copy(update={**places, "dataset_dir": None})
    bounded = config.diffusion.parametrisation == "sense"  # rounding of ε̂ is multiplied by σ_t
    precision = config.train.mixed_precision if bounded else "no"
    sampler = {"samples": options.samples, "batch_size": 16, "mixed_precision": precision}
    preset = {} if options.own_sampler else {"preset": "best"}
    sample = config.sample.model_copy(update=sampler | preset)
    bundled = config.model_copy(update={"setting": setting, "sample": sample})
    write_listed(options.folder / "config.yaml", f"# {options.about}\n{dump_asked(bundled)}")


if __name__ == "__main__":
    main()
