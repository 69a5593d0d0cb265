import json
import os
import shutil
from pathlib import Path

# Before torch: two workers with two threads each crawl, MKL's threaded LU factorisation can deadlock, and a sum split
# over threads may differ in its last bits. The commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image
from runs import msm
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "tests" / "vectors", ROOT.parent / "shared" / "golden")


def pytest_report_header() -> list[str]:
    """Say at the start which checks cannot run: skips are easily overlooked."""
    if any(folder.is_dir() for folder in FOLDERS):
        return []
    return [f"WARNING: no golden vectors, their tests are skipped: put them into {' or '.join(map(str, FOLDERS))}"]


@pytest.fixture(scope="session")
def golden():
    """golden(name) -> (tensors of NAME.safetensors, content of NAME.json); {} for a file that is absent."""

    def read(name: str) -> tuple[dict, dict]:
        paths = {path.suffix: path for folder in reversed(FOLDERS) for path in folder.glob(f"{name}.*")}
        if not paths:
            pytest.skip(f"golden vectors {name} are in neither of {', '.join(map(str, FOLDERS))}")
        tensors = load_file(paths[".safetensors"]) if ".safetensors" in paths else {}
        facts = json.loads(paths[".json"].read_text(encoding="utf-8")) if ".json" in paths else {}
        return tensors, facts

    return read


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """Small evaluated runs of the bundled models: mri and mri_short of the same measurements, hole, new; photos.h5."""
    pytest.importorskip("sigpy")
    pytest.importorskip("nilearn")
    import msm as package
    from msm.data.samples import brain_slices, portrait

    root, assets = tmp_path_factory.mktemp("runs"), Path(package.__file__).parent / "assets"
    (root / "brains").mkdir()
    (root / "photos").mkdir()
    for n, item in enumerate(brain_slices(64, 8)[:3]):
        Image.fromarray((item.image[0].abs().numpy() * 255).astype(np.uint8)).save(root / "brains" / f"{n}.png")
    face = ((portrait(64).image.movedim(0, -1).numpy() + 1) * 127.5).astype(np.uint8)
    for n in range(16):  # a name that must be escaped
        Image.fromarray(np.roll(face, 4 * n, axis=n % 2)).save(root / "photos" / f"{n:02d}<b>&'.png")

    def run(model: str, folder: str, name: str, *settings: str) -> None:
        where = [f"setting.dataset_dir={root / folder}", f"setting.pretrained_model_dir={assets / model}"]
        given = (*where, f"setting.save_dir={root / name}", *settings)
        assert msm("sample", assets / model / "config.yaml", *given) == 0

    few = ["sample.data_step={kind: proximal}", "sample.count=2", "sample.steps=2", "sample.samples=3"]
    mri = "inverse_problem={operator: undersampling, mask: {kind: cartesian, center: 5}}"
    run("brain", "brains", "mri", mri, *few, "sample.draws=2")
    run("brain", "brains", "mri_short", mri, *few, "sample.draws=1")
    run("faces", "photos", "hole", "inverse_problem={operator: box, hole: 32}", *few, "sample.draws=1")
    run("faces", "photos", "new", "sample.count=8", "sample.steps=2", "sample.draws=1")
    for name in ("mri", "mri_short", "hole"):
        assert msm("evaluate", root / name) == 0
    shutil.copytree(root / "photos", root / "seen")  # photos that the model is said to have seen, all alike
    photos = [f"setting.dataset_dir={root / 'seen'}", "data.noise_std=0.01"]
    assert msm("acquire", assets / "faces" / "config.yaml", "-o", root / "photos.h5", *photos) == 0
    assert msm("evaluate", root / "new", "--store", root / "photos.h5") == 0
    return root
