"""The main job on bundled data, as one would do it by hand: `msm sample`, `msm evaluate` and `msm report`, a few times.

The networks were trained on undersampled measurements only, and never on what they are shown here: slices of a brain
volume, measured at R = 4, 6 and 8, and a portrait with a hole, or four times too small.
"""

import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.samples import brain_pictures, portrait_picture
from ..system.console import say
from ..system.files import whole
from ..system.places import BUNDLED
from .evaluate import run_evaluation
from .sample import run_sampling
from .settings import sampling_config

SHOWN = ("axial_45", "coronal_40", "sagittal_55")  # slices; classical methods are tuned on the others
CARTESIAN = "inverse_problem={{operator: undersampling, mask: {{kind: cartesian, acceleration: {}, center: 10}}}}"
BRAINS = [(f"brain_R{r}", [CARTESIAN.format(r), "sample.count=3"]) for r in (4, 6, 8)]
FACES = [
    ("face_hole", ["inverse_problem={operator: box, hole: 32}", "sample.count=1", "sample.samples=8"]),
    ("face_x4", ["inverse_problem={operator: super_resolution, factor: 4}", "sample.count=1", "sample.samples=8"]),
]
NEW = ["inverse_problem=null", "sample.count=16"]
JOBS = {"brain": [*BRAINS, ("brain_new", NEW)], "faces": [*FACES, ("faces_new", NEW)]}


def run_demo(folder: Path) -> list[Path]:
    """Show what the bundled models do, in a run folder for each job; returns these, evaluated."""
    runs = []
    for kind, jobs in JOBS.items():
        data = _pictures(folder / "data", kind)
        for name, overrides in jobs:
            runs.append(folder / name)
            places = [f"setting.dataset_dir={data}", f"setting.save_dir={runs[-1]}", "sample.preset=best"]
            _run(f"{BUNDLED}{kind}_refined", [*places, *overrides])
    return runs


def _run(model: str, overrides: list[str]) -> None:
    """Sample and evaluate, as the two commands do."""
    say(f"\nmsm sample {shlex.join([model, *overrides])}")
    config = sampling_config(Path(model), overrides)
    run_sampling(config, Path(model))
    run_evaluation(config.setting.save_dir, None)


def _pictures(folder: Path, kind: str) -> Path:
    """Write the pictures that the model is shown, and some to tune classical methods on; returns their folder."""
    if kind == "faces":
        pictures = {"astronaut": portrait_picture()}
    else:
        named = {name if name in SHOWN else f"tuning_{name}": picture for name, picture in brain_pictures().items()}
        pictures = {name: _sixteen_bits(picture) for name, picture in named.items()}
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        with whole(folder / kind / f"{name}.png") as path:
            picture.save(path, "PNG")
    return folder / kind


def _sixteen_bits(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture)
    return Image.fromarray(np.round(65535 * pixels / pixels.max()).astype(np.uint16))
