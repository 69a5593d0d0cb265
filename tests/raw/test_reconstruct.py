"""From a raw file to images: preparation against what is known, where voxels lie, files written, memory."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from disc_scans import COILS, H, W, disc, undersampled, write_config
from helpers import scheduled
from raw_files import header, noise, write_fastmri, write_ismrmrd
from runs import SLICES, run
from runs import write_config as write_training

from msm.data_step import GradientStep, Proximal
from msm.denoiser import PartialDenoiser
from msm.error_covariance import ErrorSpectrum
from msm.errors import ConfigError, DataError
from msm.masks import CartesianMasks
from msm.noise import noise_covariance
from msm.output.run_folder import are_there, run_config
from msm.raw import prepare as preparing
from msm.raw import reconstruct as raw_sampling
from msm.raw.geometry import Geometry, affine
from msm.raw.prepare import Prepared, noise_level, prewhiten
from msm.raw.readers import import_scans
from msm.raw.reconstruct import sample_scan
from msm.raw.scan import Scan
from msm.raw.volume_files import VolumeWriter
from msm.sampling import Sampler
from msm.transforms import ifft2c


def write_stack(path, count=3):
    """An ISMRMRD stack of slices 7 mm apart, in the units 1000 times those of a magnitude of 1."""
    pytest.importorskip("ismrmrd")
    lines = []
    for i in range(count):
        k_space = 1000 * undersampled(disc(f"s{i}")[0] + 0.003 * noise((COILS, H, W), i)) * (i + 1)
        kept = k_space.abs().sum((0, 1)).nonzero().flatten().tolist()
        lines += [
            {"data": k_space[:, :, y].numpy(), "y": y, "slice": i, "position": (10, -20, 30 + 7 * i)} for y in kept
        ]
    return write_ismrmrd(path, header(H, W), lines)


# ---- preparation


@pytest.mark.parametrize("acceleration", [1, 2])
def test_noise_level_of_part_of_a_slice(acceleration):
    """Columns: 16 of the rows and some of the columns are looked at; noise is found to a few percent."""
    k_space, maps = disc("a", 64, 48, 8)
    k_space = k_space + 0.02 * 2**0.5 * noise(k_space.shape)
    mask = torch.zeros(1, 64, 48, dtype=torch.bool)
    mask[..., ::acceleration] = True
    scan = Scan("a", torch.where(mask, k_space, 0), mask, {})
    assert abs(noise_level(scan, maps) / 0.02 - 1) < 0.04
    assert abs(noise_level(replace(scan, k_space=2 * scan.k_space), maps) / 0.04 - 1) < 0.04


@pytest.mark.parametrize(
    ("rows", "columns", "coils"),
    [
        (slice(8, 64), slice(0, 48), 4),
        (slice(0, 50), slice(0, 48), 4),
        (slice(24, 64), slice(0, 48), 8),  # 5/8 of an echo
        (slice(8, 64), slice(12, 48), 8),  # of the phase encoding too
        (slice(8, 64), slice(0, 48, 2), 8),
        (slice(0, 64, 2), slice(0, 48), 8),  # the readout along W
        (slice(0, 64, 2), slice(6, 48), 8),
    ],
)
def test_noise_level_of_partial_echoes(rows, columns, coils):
    """The outermost samples, that were looked at where an echo is cut, hold signal ten times the noise."""
    k_space, maps = disc("a", 64, 48, coils)
    k_space = k_space + 0.002 * 2**0.5 * noise(k_space.shape)
    mask = torch.zeros(1, 64, 48, dtype=torch.bool)
    mask[:, rows, columns] = True
    scan = Scan("a", torch.where(mask, k_space, 0), mask, {})
    assert abs(noise_level(scan, maps) / 0.002 - 1) < 0.12


def test_noise_scan_whitens_the_coils():
    """Noise of covariance M Mᴴ in scan and k-space: afterwards it is white, and dividing by the scale gives ρ = 1."""
    mix = torch.eye(COILS, dtype=torch.complex64) + 0.4 * noise((COILS, COILS), 1)
    mask = torch.ones(1, 64, 64, dtype=torch.bool)

    def mixed(shape, seed):
        return torch.tensordot(mix, noise((COILS, *shape), seed), dims=1)

    scan = prewhiten(Scan("a", 5 * mixed((64, 64), 2), mask, {"scale": 5.0}, 5 * mixed((20_000,), 3)))
    for values in (scan.noise, scan.k_space):
        covariance = noise_covariance(values / scan.provenance["scale"])
        assert (covariance - 2 * torch.eye(COILS)).abs().max() < 0.15
    assert scan.provenance["whitened"]
    bare = Scan("a", mixed((8, 8), 2), mask[:, :8, :8], {})
    assert prewhiten(bare) is bare


def test_a_noise_scan_of_no_use_is_one_clear_line():
    scan = Scan("a:3", noise((4, 8, 8)), torch.ones(1, 8, 8, dtype=torch.bool), {}, noise((4, 5)))
    with pytest.raises(ValueError, match=r"^a:3: the noise scan cannot be used: 5 noise samples are too few"):
        prewhiten(scan)


# ---- sampling one scan


def test_what_is_measured_without_noise_is_the_sample():
    """One coil, everything measured: the posterior is the image itself, whatever the network says."""
    k_space, told = noise((1, 16, 12)), []
    scan = Scan("a", k_space, torch.ones(1, 16, 12, dtype=torch.bool), {})
    prepared = Prepared(scan, torch.ones(1, 16, 12, dtype=torch.complex64), 0.0, 0.0)

    @scheduled
    def denoiser(z_t, mask, t, transform):
        return torch.zeros_like(z_t)

    denoiser.masks = CartesianMasks((32, 24), 2, 4)
    how = {"sampler": Sampler(steps=3), "data_step": GradientStep(1.0), "batch_size": 2, "advance": told.append}
    samples = sample_scan(denoiser, prepared, seeds=[1, 2, 3], **how)
    torch.testing.assert_close(samples, ifft2c(k_space).expand(3, 1, 16, 12), rtol=0, atol=1e-5)
    assert sum(told) == 9


# ---- where voxels lie


def place(position, directions=((0, 0, 1), (1, 0, 0), (0, 1, 0)), voxel=(1.0, 2.0, 5.0), is_plane=False):
    return Geometry(voxel, directions, position, is_plane)


def test_affine_of_a_stack():
    """H runs to superior, W to left, slices to posterior, 7 mm apart: the middle voxel of slice k is its position."""
    matrix = affine((6, 4), [place((10, -20 + 7 * k, 30)) for k in range(3)])
    np.testing.assert_allclose(matrix @ [3, 2, 0, 1], [-10, 20, 30, 1])
    np.testing.assert_allclose(matrix @ [3, 2, 2, 1], [-10, 6, 30, 1])
    np.testing.assert_allclose(matrix @ [4, 2, 0, 1], [-10, 20, 31, 1])  # 1 mm towards superior
    np.testing.assert_allclose(matrix @ [3, 3, 0, 1], [-12, 20, 30, 1])  # 2 mm towards left


def test_affine_of_one_slice_and_of_a_volume():
    """A slice has its thickness across; a volume of 4 planes has its middle at plane 2."""
    np.testing.assert_allclose(affine((6, 4), [place((0, 0, 0))])[:3, 2], [0, -5, 0])
    matrix = affine((6, 4), [place((10, -20, 30), is_plane=True)] * 4)
    np.testing.assert_allclose(matrix @ [3, 2, 2, 1], [-10, 20, 30, 1])
    np.testing.assert_allclose(matrix @ [3, 2, 3, 1], [-10, 15, 30, 1])


@pytest.mark.parametrize(
    "slices",
    [
        [place(None)],
        [Geometry(None, None, None, False)],
        [place((0, 0, 0)), place((0, 5, 0), directions=((1, 0, 0), (0, 0, 1), (0, 1, 0)))],
        [place((0, 0, 0)), place((0, 5, 0)), place((0, 20, 0))],
        [place((0, 0, 0)), place((0, 0, 0))],
    ],
    ids=["no position", "nothing", "crossing", "uneven", "on top of each other"],
)
def test_no_affine(slices):
    assert affine((6, 4), slices) is None


# ---- files


def test_a_stack_becomes_hdf5_nifti_and_pictures(tmp_path, monkeypatch, capsys):
    """Non-square, odd, three slices of different brightness: on the file's grid, in its units, where it lay."""
    nibabel = pytest.importorskip("nibabel")
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd"))
    assert run(monkeypatch, "sample", config) == 0
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {
        *("head", "head.h5", "head.nii", "head_std.nii"),
        *("config.yaml", "resolved.yaml", "versions.json", "SHA256SUMS"),
    }
    assert sorted(p.name for p in (out / "head").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    with h5py.File(out / "head.h5") as file:
        mean, deviation = file["reconstruction"][:], file["standard_deviation"][:]
        assert mean.shape == deviation.shape == (3, H, W) and mean.dtype == np.float32
        assert (deviation >= 0).all() and deviation.max() > 0 and (file["maps_residual"][:] < 0.05).all()
        provenance = json.loads(file.attrs["provenance"])
        assert provenance["file"] == "head.mrd" and provenance["sample"]["samples"] == 3
        scale = file["scale"][:]
    # the file's units: slice i is i + 1 times 1000, and the sampler has seen the same magnitude of all
    assert ((mean.max((1, 2)) * scale > 0.3) & (mean.max((1, 2)) * scale < 3)).all() and mean[2].max() > 500
    for name, values in (("head", mean), ("head_std", deviation)):
        image = nibabel.load(out / f"{name}.nii")
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values.transpose(1, 2, 0))
        np.testing.assert_allclose(image.affine @ [H // 2, W // 2, 1, 1], [-10, 20, 37, 1], atol=1e-4)
        np.testing.assert_allclose(image.header.get_zooms(), (1, 2, 7), atol=1e-5)
        assert image.header["sform_code"] == 1 and image.header["qform_code"] == 1
    assert "3 slices" in capsys.readouterr().out


def test_the_deviation_of_one_sample_is_not_said_to_be_zero(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd"))
    assert run(monkeypatch, "sample", config, "sample.samples=1") == 0
    assert not (tmp_path / "out" / "head_std.nii").exists() and (tmp_path / "out" / "head.nii").exists()
    with h5py.File(tmp_path / "out" / "head.h5") as file:
        assert "standard_deviation" not in file and file["reconstruction"][:].max() > 0
    assert "_std" not in capsys.readouterr().out


def test_the_recorded_config_of_a_training_run_gives_eight_samples(tmp_path, monkeypatch):
    """The example of `msm sample --help`: what training did not ask for is that of raw scans, so there is a spread."""
    pytest.importorskip("nibabel")
    assert run(monkeypatch, "train", write_training(tmp_path, **SLICES)) == 0
    np.save(tmp_path / "scan.npy", undersampled(disc("a")[0]).numpy())
    given = [f"setting.dataset_dir={tmp_path}/scan.npy", f"setting.pretrained_model_dir={tmp_path}/run/weights"]
    out = f"setting.save_dir={tmp_path}/out"
    assert run(monkeypatch, "sample", tmp_path / "run" / "config.yaml", "data.kind=raw", *given, out) == 0
    settings = run_config(tmp_path / "out").sample
    assert (settings.samples, settings.eta, settings.data_step.kind) == (8, 0.85, "proximal")
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        assert file["standard_deviation"][:].max() > 0


def test_a_missing_package_is_found_at_the_start(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd"))
    monkeypatch.setitem(sys.modules, "nibabel.nifti1", None)
    monkeypatch.setattr(raw_sampling, "sample_scan", lambda *given, **options: pytest.fail("a slice was sampled"))
    assert run(monkeypatch, "sample", config) == 2
    error = capsys.readouterr().err
    assert "needs nibabel: pip install 'msm-diffusion[mri]' (" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def kept(out):
    """Slices of an unfinished volume."""
    return sorted(out.rglob("head.parts/*/*.pt"))


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Stopped in the third slice, and again: the first two are not sampled again, the result is the same bits."""
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd"))
    assert run(monkeypatch, "sample", config, f"setting.save_dir={tmp_path}/whole") == 0
    sampled, sample = [], raw_sampling.sample_scan

    def stopping(denoiser, prepared, **options):
        if len(sampled) == 2 and not (tmp_path / "go").exists():
            raise DataError("stopped")
        sampled.append(prepared.scan.name)
        return sample(denoiser, prepared, **options)

    monkeypatch.setattr(raw_sampling, "sample_scan", stopping)
    assert run(monkeypatch, "sample", config) == 2
    assert not (tmp_path / "out" / "head.h5").exists() and len(kept(tmp_path / "out")) == 2
    (tmp_path / "go").touch()
    assert run(monkeypatch, "sample", config) == 0
    assert sampled == ["head:0", "head:1", "head:2"] and not kept(tmp_path / "out")
    assert run(monkeypatch, "sample", config) == 0 and len(sampled) == 3  # all there
    with h5py.File(tmp_path / "out" / "head.h5") as a, h5py.File(tmp_path / "whole" / "head.h5") as b:
        assert all(np.array_equal(a[name], b[name]) for name in b)


def test_results_of_other_settings_are_not_mixed(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd", 1))
    assert run(monkeypatch, "sample", config) == 0
    assert run(monkeypatch, "sample", config, "sample.steps=3") == 2
    assert (
        "made with other settings or data; choose another setting.save_dir (--force replaces it)"
        in capsys.readouterr().err
    )


def test_draws_with_another_measured_error_are_not_mixed(tmp_path, monkeypatch, capsys):
    """The weights are the same; only a step that draws asks for their error."""
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd", 1))
    denoiser = PartialDenoiser.load(tmp_path / "weights")

    def sampled(kind, power):
        denoiser.measured_error = ErrorSpectrum(
            torch.tensor([0.01, 100.0]), torch.tensor([0.0, 0.7]), torch.full((2, 1, 2), power)
        )
        denoiser.save_error(tmp_path / "weights")
        given = [f"setting.save_dir={tmp_path / kind}", f"sample.data_step={{kind: {kind}}}"]
        return run(monkeypatch, "sample", config, *given)

    assert [sampled("draw", power) for power in (0.1, 0.1, 0.2)] == [0, 0, 2]
    assert "made with other settings or data" in capsys.readouterr().err
    assert [sampled("proximal", power) for power in (0.1, 0.2)] == [0, 0]


def test_the_likelihood_weight_is_the_data_steps(tmp_path, monkeypatch):
    """The noise level that the sampler is told, and that is recorded, stays the estimated one."""
    config, told = write_config(tmp_path, write_stack(tmp_path / "head.mrd", 1)), []
    sample = raw_sampling.sample_scan

    def listening(denoiser, prepared, *, data_step, **options):
        told.append((prepared.noise_std, data_step))
        return sample(denoiser, prepared, data_step=data_step, **options)

    monkeypatch.setattr(raw_sampling, "sample_scan", listening)
    assert run(monkeypatch, "sample", config, "sample.data_step={likelihood_weight: 4}") == 0
    ((noise_std, data_step),) = told
    assert data_step == Proximal(6, 4.0)
    with h5py.File(tmp_path / "out" / "head.h5") as file:
        assert [noise_std] == pytest.approx(file["noise_std"][:])
        assert json.loads(file.attrs["provenance"])["sample"]["data_step"]["likelihood_weight"] == 4
    assert run(monkeypatch, "sample", config) == 2  # not mixed with results of another weight


def test_damaged_and_swapped_slices_are_made_anew(tmp_path):
    def left(seed=0):
        return VolumeWriter(tmp_path / "head.h5", 3, {"seed": seed}).left

    writer = VolumeWriter(tmp_path / "head.h5", 3, {"seed": 0})
    for number in (0, 1):
        facts = {"noise_std": 0.1, "maps_residual": 0.2, "scale": 3}
        writer.add(number, torch.full((4, 3), float(number)), torch.zeros(4, 3), b"png", **facts)
    assert left() == {2} and left(seed=1) == {0, 1, 2}
    first, second = kept(tmp_path)
    whole = first.read_bytes()
    for place in range(0, len(whole), 97):
        first.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert left() == {0, 2}
    first.write_bytes(whole[:700])
    assert left() == {0, 2}
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    assert left() == {0, 1, 2}


def test_badly_explained_data_is_warned_of(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd", 2))
    monkeypatch.setattr(preparing, "outside_span", lambda scan, maps: 0.3 if scan.name.endswith("1") else 0.01)
    assert run(monkeypatch, "sample", config) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("msm: warning: head:1: 30% of the calibration region's energy")


def test_memory_does_not_grow_with_the_slices(tmp_path, monkeypatch):
    """60 slices of 384 × 384: what the results alone take, 70 MB, must not stay in memory."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("reads the memory from /proc")
    size, count, held = 384, 60, []
    k_space = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.complex64, (count, 1, size, size))
    for i in range(count):
        k_space[i] = noise((1, size, size), i) / (1 + np.hypot(*np.indices((size, size)) - size // 2))
    k_space.flush()
    del k_space
    config = write_config(tmp_path, tmp_path / "a.npy")

    def mean_of_noise(denoiser, prepared, **options):
        private = int(status.read_text().split()[1]) - int(status.read_text().split()[2])  # without the mapped file
        held.append(4096 * private)
        return ifft2c(prepared.scan.k_space)[None].repeat(2, 1, 1, 1)

    monkeypatch.setattr(raw_sampling, "sample_scan", mean_of_noise)
    monkeypatch.setattr(raw_sampling, "comparison", lambda *a: b"png")
    monkeypatch.setattr(preparing, "estimate_noise", lambda m: (torch.zeros(1), torch.zeros(1)))
    assert run(monkeypatch, "sample", config, "sample.samples=2") == 0
    assert len(held) == count and held[-1] - held[10] < 15e6


def test_a_bad_scan_of_a_folder_is_skipped(tmp_path, monkeypatch, capsys):
    """Of a folder in a folder, too: the others are done, the bad are named, the exit code says so."""
    (tmp_path / "raw" / "b").mkdir(parents=True)
    k_space = undersampled(disc("a")[0])
    np.save(tmp_path / "raw" / "a.npy", k_space.numpy())
    np.save(tmp_path / "raw" / "b" / "a.npy", k_space.numpy())
    (tmp_path / "raw" / "damaged.npy").write_bytes(b"damaged")
    np.save(tmp_path / "raw" / "gaps.npy", (k_space * (torch.arange(W) % 2)).numpy())  # no calibration region
    (tmp_path / "raw" / "notes.txt").touch()
    assert run(monkeypatch, "sample", write_config(tmp_path, tmp_path / "raw")) == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["a.h5", "b_a.h5"]
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        assert json.loads(file.attrs["provenance"])["taken_for"].startswith("taken for k-space (coils, H, W)")
    error = capsys.readouterr().err
    assert "3 raw files" not in error and "4 raw files; files of other kinds are left out: 1 .txt" in error
    for name, reason in (("damaged", "not readable"), ("gaps", "is fully sampled on")):
        assert sum(f"skipped {tmp_path}/raw/{name}.npy" in line and reason in line for line in error.splitlines()) == 1
    assert "2 of 4 files were skipped, see above; exit code 3" in error


def test_of_twenty_scans_two_fail_and_a_table_says_what_became_of_each(tmp_path, monkeypatch, capsys):
    """One cannot be read, one fails while it is sampled; the others' bits are those without them."""
    (tmp_path / "raw").mkdir()
    for n in range(20):
        k_space = undersampled(disc("a")[0] + 0.003 * noise((COILS, H, W), n))
        np.save(tmp_path / "raw" / f"scan{n:02d}.npy", k_space.numpy())
    (tmp_path / "raw" / "scan00.npy").write_bytes(b"damaged")
    real = raw_sampling.sample_scan

    def failing(denoiser, prepared, **options):
        samples = real(denoiser, prepared, **options)
        if prepared.scan.name.startswith("scan13"):
            raise DataError("sampling gave values that are not finite")
        return samples

    config = write_config(tmp_path, tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(raw_sampling, "sample_scan", failing)
        assert run(monkeypatch, "sample", config) == 3
    made = sorted(path.stem for path in (tmp_path / "out").glob("*.h5"))
    assert made == [f"scan{n:02d}" for n in range(1, 20) if n != 13]
    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if "│ scan" in line]
    assert len(rows) == 20 and sum("│ " in row and "done" in row for row in rows) == 18
    assert [row.split()[1] for row in rows if "skipped" in row] == ["scan00.npy", "scan13.npy"]
    assert "skipped" in said.err and "scan13.npy: sampling gave values that are not finite" in said.err
    assert said.err.splitlines()[-1].endswith("2 of 20 files were skipped, see above; exit code 3")
    before = {name: (tmp_path / "out" / f"{name}.h5").read_bytes() for name in made}
    (tmp_path / "raw" / "scan00.npy").unlink()
    assert run(monkeypatch, "sample", config) == 0  # goes on: the one that failed, with its own seeds
    rows = [line for line in capsys.readouterr().out.splitlines() if "│ scan" in line]
    assert sum("was there" in row for row in rows) == 18 and ["done" in row for row in rows].count(True) == 1
    assert all((tmp_path / "out" / f"{name}.h5").read_bytes() == content for name, content in before.items())
    assert run(monkeypatch, "sample", config, f"setting.save_dir={tmp_path}/whole") == 0
    with h5py.File(tmp_path / "out/scan13.h5") as resumed, h5py.File(tmp_path / "whole/scan13.h5") as whole:
        np.testing.assert_array_equal(resumed["reconstruction"], whole["reconstruction"])


def test_maps_that_turn_out_bad_are_found_before_any_sampling(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", undersampled(disc("a")[0]).numpy())

    def empty(scan):
        raise DataError(f"{scan.name}: the coil maps are empty")

    monkeypatch.setattr(preparing, "espirit_maps", empty)
    monkeypatch.setattr(raw_sampling, "sample_scan", lambda *given, **options: pytest.fail("a slice was sampled"))
    assert run(monkeypatch, "sample", write_config(tmp_path, tmp_path / "a.npy")) == 2
    assert "a:0: the coil maps are empty" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_own_maps(tmp_path, monkeypatch, capsys):
    """Without a calibration region, in any scale; what does not fit is one clear line."""
    k_space, maps = disc("a")
    np.save(tmp_path / "a.npy", (k_space * (torch.arange(W) % 2 == 0)).numpy())
    np.savez(tmp_path / "maps.npz", maps=5 * maps.numpy())
    np.save(tmp_path / "small.npy", maps[:, :-1].numpy())
    np.save(tmp_path / "zero.npy", 0 * maps.numpy())
    np.save(tmp_path / "real.npy", maps.abs().numpy())
    config = write_config(tmp_path, tmp_path / "a.npy")
    for name, message in (
        ("small.npy", f"maps have shape ({COILS}, {H - 1}, {W}), a:0 has {COILS} coils of {H} × {W}; make them on its"),
        ("zero.npy", "the coil maps for a:0 are zero throughout"),
        ("real.npy", "expected complex maps"),
        ("none.npy", "no such file; correct setting.coil_maps"),
        ("a.txt", "no such file"),
    ):
        assert run(monkeypatch, "sample", config, f"setting.coil_maps={tmp_path}/{name}") == 2
        error = capsys.readouterr().err
        assert f"{tmp_path}/{name}: " in error and message in error and error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()
    taken = []
    sample = raw_sampling.sample_scan

    def looking(denoiser, prepared, **options):
        taken.append(prepared)
        return sample(denoiser, prepared, **options)

    monkeypatch.setattr(raw_sampling, "sample_scan", looking)
    assert run(monkeypatch, "sample", config, f"setting.coil_maps={tmp_path}/maps.npz") == 0
    captured = capsys.readouterr()
    assert "coil maps as given, scaled to a sum of squares of 1" in captured.err
    assert "no calibration region to judge the coil maps by" in captured.out
    (prepared,) = taken
    inside = prepared.maps.abs().sum(0) > 0
    assert prepared.maps.shape == (COILS, H + 1, W) and inside.any()
    torch.testing.assert_close(prepared.maps.abs().square().sum(0)[inside], torch.ones(int(inside.sum())))
    out = ["-o", f"{tmp_path}/s.h5", "--size", "32", "24", "--maps"]
    assert run(monkeypatch, "acquire", f"{tmp_path}/a.npy", *out, f"{tmp_path}/maps.npz") == 0


def test_two_files_of_one_name_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "raw").mkdir()
    k_space = undersampled(disc("a")[0])
    np.save(tmp_path / "raw" / "a.npy", k_space.numpy())
    write_fastmri(tmp_path / "raw" / "a.h5", k_space[None], header(H, W))
    assert run(monkeypatch, "sample", write_config(tmp_path, tmp_path / "raw")) == 2
    assert "has the same name, which the results would have; rename one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scans_and_other_samples_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, write_stack(tmp_path / "head.mrd", 1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images.npy").touch()
    assert run(monkeypatch, "sample", config) == 2
    assert "holds another kind of run (images.npy)" in capsys.readouterr().err
    (tmp_path / "out" / "images.npy").unlink()
    assert run(monkeypatch, "sample", config) == 0
    with pytest.raises(ConfigError, match=r"holds another kind of run \(head.nii\)"):
        are_there(tmp_path / "out", "samples of something else")


def test_a_file_whose_results_would_lie_over_anothers_is_refused(tmp_path, monkeypatch, capsys):
    """The deviation of a.npy is a_std.nii, as the mean of a_std.npy would be."""
    (tmp_path / "raw").mkdir()
    for name in ("a", "a_std"):
        np.save(tmp_path / "raw" / f"{name}.npy", undersampled(disc("a")[0]).numpy())
    assert run(monkeypatch, "sample", write_config(tmp_path, tmp_path / "raw")) == 2
    said = capsys.readouterr().err
    assert "results of a.npy, a_std.nii, would lie where its own do; rename one" in said
    assert not (tmp_path / "out").exists()


def test_a_file_without_calibration_region_is_one_clear_line(tmp_path, monkeypatch, capsys):
    k_space = disc("a")[0].clone()
    k_space[..., ::2] = 0
    np.save(tmp_path / "a.npy", k_space.numpy())
    assert run(monkeypatch, "sample", write_config(tmp_path, tmp_path / "a.npy")) == 2
    error = capsys.readouterr().err
    assert "a:0: around its centre (row 15, column 12) k-space is fully sampled on" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert len(list(import_scans([tmp_path / "a.npy"]))) == 1
