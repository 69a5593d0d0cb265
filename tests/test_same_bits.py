"""The command line gives the arrays of before: `tests/vectors/same_bits.npz`, written by this file.

    PYTHONPATH=src python tests/test_same_bits.py tests/vectors/same_bits.npz

The house was rebuilt without changing a number. The record was written anew for two repairs: coil maps in PyTorch (only
raw/… differs), and the data step's normal map in one dimension (slices/best, by 5e-7 of its largest value).

On the kind of machine it was written on the bits are compared, elsewhere (other processors, other PyTorch, other
Python, which takes another NumPy) the values.
"""

import json
import platform
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from runs import msm
from safetensors.numpy import load_file

RECORD = Path(__file__).parent / "vectors" / "same_bits.npz"
NETWORK = "{image_size: 16, in_channels: %d, num_channels: 8, num_res_blocks: 1, channel_mult: [1, 2], "
NETWORK += "attention_resolutions: [8], num_head_channels: 8, num_groups: 4}"
TRAIN = "{images: 24, batch_size: 4, lr: 2.0e-3, warmup_images: 8, decay: cosine, ema_decay: 0.9, checkpoint_images: 12"
CONFIGS = {
    "photos": {
        "data": "{kind: images, image_size: 16, mask: {kind: box, drop: 0.4}, held_out: 0}",
        "network": NETWORK % 3,
        "train": TRAIN + ", augment: true, submask_share: 0.5, submask_keep: [0.3, 1.0]}",
    },
    "noisy": {
        "data": "{kind: images, image_size: 16, channels: 1, mask: {kind: box}, held_out: 0, noise_std: 0.1}",
        "network": NETWORK % 1,
        "diffusion": "{parametrisation: edm, train_grid: cosine}",
        "train": TRAIN + ", accumulate: 2, sure_share: 0.5, target_average: true, target_steps: 1}",
    },
    "slices": {
        "data": "{kind: slices, image_size: 16, coils: 3, mask: {kind: cartesian, acceleration: 3, center: 6}, "
        "held_out: 0, phase_detail: 0.2}",
        "network": NETWORK % 2,
        "diffusion": "{parametrisation: sense, train_grid: cosine, phase_residual: 0.03}",
        "train": TRAIN + ", augment: true}",
    },
}
MRI = "inverse_problem={operator: undersampling, noise_std: 0.02, mask: {kind: cartesian, acceleration: 4, center: 4}}"
MAXIMISER = (  # `best` of then, for photos and for slices
    ["sample.steps=20", "sample.draws=2", "sample.data_step.kind=proximal"],
    ["sample.steps=5", "sample.draws=3", "sample.grid=log", "sample.warm_start=1", "sample.data_step.iterations=20"],
)
SAMPLES = {  # name of the trained network: name of the run: settings
    "photos": {
        "new": ["sample.count=3", "sample.steps=4"],
        "new_iid": ["sample.count=3", "sample.steps=4", "sample.preset=paper", "sample.draws=2", "sample.eta=0.5"],
        "new_chain": ["sample.count=3", "sample.steps=4", "sample.preset=best", "sample.score=chain"],
        "hole": ["inverse_problem={operator: box, hole: 6}", "sample.count=2", "sample.steps=4", "sample.samples=2"],
        "small": ["inverse_problem={operator: super_resolution, factor: 4}", "sample.count=2", *MAXIMISER[0]],
        "blur": ["inverse_problem={operator: gaussian_blur, blur_sigma: 1}", "sample.count=2", "sample.steps=3"],
    },
    "noisy": {"new": ["sample.count=2", "sample.steps=4", "sample.batch_size=1"]},
    "slices": {
        "new": ["sample.count=3", "sample.steps=4", "sample.grid=log", "sample.order=2"],
        "published": [MRI, "sample.count=2", "sample.steps=4"],
        "best": [MRI, "sample.count=2", "sample.samples=2", "sample.data_step.kind=proximal", *MAXIMISER[1]],
        "chain": [MRI, "sample.count=2", "sample.steps=3", "sample.score=chain"],
    },
}


def waves(*shape, seed):
    """Smooth random images (H, W) of 0 … 1."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    rows, columns = (np.fft.fftfreq(n, 1 / n) for n in shape)
    smooth = np.fft.ifft2(np.fft.fft2(noise) / (1 + rows[:, None] ** 2 + columns**2)).real
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def write_pictures(folder):
    folder.mkdir()
    for n in range(8):
        rgb = np.stack([waves(16, 16, seed=(n, c)) for c in range(3)], -1)
        Image.fromarray((255 * rgb).astype(np.uint8)).save(folder / f"{n}.png")


def write_scan(path):
    """Two slices of 3 coils, every third column and 23 in the middle, noise 1 % of the image."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-1:1:40j, -1:1:48j]
    coils = np.stack([np.exp(-((y - a) ** 2) - (x - b) ** 2 + 0.3j * x * a) for a, b in ((0, 1), (1, -1), (-1, -1))])
    slices = []
    for n in range(2):
        image = waves(40, 48, seed=n) * (y**2 + x**2 < 0.8) * np.exp(0.4j * y)
        k_space = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils * image, (1, 2)), norm="ortho"), (1, 2))
        noise = rng.standard_normal((2, *k_space.shape))
        slices.append(k_space + 0.01 * (noise[0] + 1j * noise[1]))
    keep = (np.arange(48) % 3 == 0) | (abs(np.arange(48) - 24) < 12)
    np.save(path, (np.stack(slices) * keep).astype(np.complex64))


def read(path):
    """Arrays of a file by name."""
    if path.suffix == ".npy":
        return {"": np.load(path)}
    if path.suffix == ".safetensors":
        return {f":{name}": value for name, value in load_file(path).items()}
    with h5py.File(path) as file:
        return {f":{name}": data[:] for name, data in file.items() if data.dtype.kind in "fcb"}


def arrays(folder, msm):
    """All arrays of all runs, by the names of the run and the file."""
    found = {}

    def keep(label, path):
        found.update({f"{label}{name}": value for name, value in read(path).items()})

    write_pictures(folder / "pictures")
    write_scan(folder / "scan.npy")
    for name, blocks in CONFIGS.items():
        config, run, given = folder / f"{name}.yaml", folder / name, []
        text = "".join(f"{block}: {value}\n" for block, value in blocks.items())
        config.write_text(f"setting: {{save_dir: {run}, dataset_dir: {folder / 'pictures'}}}\n{text}")
        assert msm("train", config) == 0
        keep(f"{name}/measurements", run / "measurements.h5")
        keep(f"{name}/weights", run / "weights" / "model.safetensors")
        given = [f"setting.pretrained_model_dir={run / 'weights'}", "sample.batch_size=2"]
        for label, settings in SAMPLES[name].items():
            out = folder / f"{name}_{label}"
            assert msm("sample", config, *given, f"setting.save_dir={out}", *settings) == 0
            keep(f"{name}/{label}", out / ("samples.npy" if (out / "samples.npy").exists() else "images.npy"))
    raw = ["data.kind=raw", f"setting.dataset_dir={folder / 'scan.npy'}", f"setting.save_dir={folder / 'raw'}"]
    raw += [f"setting.pretrained_model_dir={folder / 'slices' / 'weights'}", "sample.steps=3", "sample.samples=3"]
    assert msm("sample", folder / "slices.yaml", *raw) == 0
    keep("raw/scan", folder / "raw" / "scan.h5")
    assert msm("acquire", folder / "scan.npy", "-o", folder / "store.h5", "--size", "40", "32") == 0
    keep("raw/store", folder / "store.h5")
    return found


def machine():
    """What the last bits depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "capability": capability, "model": model, "python": python}


@pytest.fixture
def one_thread():
    """Sums are split over threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_arrays_are_those_of_before(tmp_path, one_thread):
    pytest.importorskip("sigpy")
    before = dict(np.load(RECORD, allow_pickle=False))
    same_machine = json.loads(str(before.pop("machine"))) == machine()
    after = arrays(tmp_path, msm)
    assert after.keys() == before.keys()
    for name, array in before.items():
        assert after[name].dtype == array.dtype and after[name].shape == array.shape, name
        if same_machine:
            assert np.array_equal(after[name], array, equal_nan=True), name
        else:
            np.testing.assert_allclose(after[name], array, rtol=0.02, atol=0.02 * np.abs(array).max(), err_msg=name)


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        record = arrays(Path(folder), msm)
    np.savez_compressed(sys.argv[1], machine=np.array(json.dumps(machine())), **record)
