"""Fashion-MNIST as a folder of PNG files of 32 px, padded with black as it is usual, for `msm acquire` and `msm train`.

    python benchmarks/tools/fashion_mnist.py FOLDER [--test] [--raw ROOT]

Writes the 60,000 training images, or the 10,000 test images. ROOT is where torchvision keeps the dataset,
ROOT/FashionMNIST/raw; what is not there is downloaded.

Source: Xiao, Rasul & Vollgraf, "Fashion-MNIST", 2017, MIT licence.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import ImageOps
from rich.progress import track
from torchvision.datasets import FashionMNIST

PADDING = 2  # black pixels on each side: 28 px become 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--raw", type=Path, help="root of torchvision's copy, kept; without it a temporary one")
    parser.add_argument("--test", action="store_true", help="the test images instead of those to train on")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        images = FashionMNIST(options.raw or temporary, train=not options.test, download=True)
        for i, (image, _) in enumerate(track(images, "writing", total=len(images))):
            ImageOps.expand(image, PADDING).save(options.folder / f"{i:05}.png")


if __name__ == "__main__":
    main()
