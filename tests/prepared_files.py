"""Volumes as fastMRI's authors prepared them, of made-up content."""

import h5py
import numpy as np

SLICES, COILS, HEIGHT, WIDTH = 8, 3, 12, 10


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def write_outside(path):
    """Both halves of a volume in one file, which is where a table must not lead."""
    with h5py.File(path, "w") as file:
        file["x_hat"], file["smps_hat"] = noise(SLICES, HEIGHT, WIDTH), noise(SLICES, COILS, HEIGHT, WIDTH)


def write(folder, name, slices=SLICES, seed=0, height=HEIGHT, width=WIDTH):
    """One volume; the maps have unit sum of squares."""
    maps = noise(slices, COILS, height, width, seed=seed + 1000)
    maps /= np.sqrt((abs(maps) ** 2).sum(1, keepdims=True))
    for kind, data in (("x_hat", 7 * noise(slices, height, width, seed=seed)), ("smps_hat", maps)):
        (folder / kind).mkdir(exist_ok=True)
        with h5py.File(folder / kind / f"{name}.h5", "w") as file:
            file[kind] = data
    return folder
