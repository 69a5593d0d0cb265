"""Coil maps: recovered from simulated coils, the calibration region found, and what the maps leave unexplained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_files import centred_fft, noise

from msm.data.acquire import simulate_scan
from msm.errors import DataError
from msm.raw import coil_maps
from msm.raw.coil_maps import calibration_region, compress, espirit_maps, outside_span
from msm.raw.readers import import_scans
from msm.raw.scan import Scan
from msm.transforms import MultiCoil

SIZE = 48


def calibration_size(scan):
    return tuple(part.stop - part.start for part in calibration_region(scan))


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "kspace"


def middle(height, width, size=(SIZE, SIZE)):
    """A mask of a centred rectangle, the centre being at n // 2."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    top, left = (n // 2 - m // 2 for n, m in zip(size, (height, width)))
    mask[:, top : top + height, left : left + width] = True
    return mask


def scan_of(mask, k_space=None):
    k_space = noise((2, *mask.shape[1:])) if k_space is None else k_space
    return Scan("slice", torch.where(mask, k_space, 0), mask, {})


@pytest.fixture(scope="module")
def disc():
    """A disc with a smooth phase in eight birdcage coils, its k-space and the true maps."""
    pytest.importorskip("sigpy")
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    magnitude = ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (1 + 0.3 * torch.cos(9 * x) * torch.sin(7 * y))
    source = simulate_scan("disc", magnitude / 1.3, 8, seed=0)
    return magnitude > 0, MultiCoil(source.maps[None]).forward(source.image[None])[0], source.maps


@pytest.mark.parametrize(
    ("mask", "size"),
    [
        (middle(20, 16), (20, 16)),
        (middle(7, 9), (7, 9)),
        (middle(SIZE, 10), (SIZE, 10)),
        (middle(SIZE, SIZE), (SIZE, SIZE)),
        (middle(20, 16) | middle(SIZE, 1), (20, 16)),  # a single line is longer, and of no use
        (middle(8, 30) | middle(20, 16), (20, 16)),
        (middle(8, 40) | middle(16, 16), (8, 40)),
        (middle(12, 14, (33, 41)), (12, 14)),
    ],
)
def test_largest_rectangle(mask, size):
    assert calibration_size(scan_of(mask)) == size


@pytest.mark.parametrize("mask", [middle(5, SIZE), middle(20, 20).roll(12, 2), ~middle(1, 1)])
def test_no_calibration_region_is_one_clear_line(mask):
    for function in (calibration_size, espirit_maps, lambda scan: compress(scan, 1)):
        with pytest.raises(
            DataError, match=r"^slice: around its centre .* coil maps need 6 × 6; acquire .*coil_maps=FI"
        ):
            function(scan_of(mask))


def test_the_message_says_how_many_lines_there_are():
    with pytest.raises(
        DataError, match=r"\(row 24, column 24\) k-space is fully sampled on 48 × 5 points, coil maps need"
    ):
        calibration_size(scan_of(middle(SIZE, 5)))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((0, 48), (20, 28)), ((8, 48), (0, 48)), ((3, 30), (22, 45)), ((24, 41), (10, 25)), ((0, 33), (24, 32))],
)
def test_a_region_that_is_not_centred_is_found_whole(rows, columns):
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[:, slice(*rows), slice(*columns)] = True
    mask[:, ::7, ::5] = True  # lone points do not count
    found = calibration_region(scan_of(mask))
    assert all(part.start <= n for part, n in zip(found, (rows[0], columns[0])))
    assert mask[0][found].all() and mask[0][found].sum() >= (rows[1] - rows[0]) * (columns[1] - columns[0])


def smooth_coils(count, height=64, width=64):
    """An object of sharp edges and a smooth phase, coils around it, and its k-space without noise, by NumPy."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = (((y / 0.8) ** 2 + (x / 0.62) ** 2 < 1) - 0.5 * ((y + 0.2) ** 2 + (x - 0.2) ** 2 < 0.05)) * np.exp(0.5j * y)
    angle = 2 * np.pi * np.arange(count)[:, None, None] / count
    distance = (y - 1.1 * np.sin(angle)) ** 2 + (x - 1.1 * np.cos(angle)) ** 2
    maps = np.exp(-distance / 1.6 + 1j * angle)
    maps /= np.sqrt((abs(maps) ** 2).sum(0))
    k_space = torch.from_numpy(centred_fft(maps * image, (1, 2)).astype(np.complex64))
    return torch.from_numpy(image), torch.from_numpy(maps.astype(np.complex64)), k_space


@pytest.mark.parametrize("lines", [6, 7, 8, 10, 11])
@pytest.mark.parametrize(("coils", "offset", "along"), [(4, 0, 2), (8, 2, 2), (4, 0, 1)])
def test_maps_of_few_lines(lines, coils, offset, along):
    """Of 64 × 8 points, of which others take a square of 8 × 8, ESPIRiT's maps were zero throughout."""
    image, true, k_space = smooth_coils(coils)
    k_space = k_space + 0.002 * noise(k_space.shape)
    kept = torch.zeros(64, dtype=torch.bool)
    kept[::4] = True
    kept[32 - lines // 2 + offset : 32 - lines // 2 + offset + lines] = True
    mask = kept.expand(1, 64, 64)
    maps = espirit_maps(scan_of(mask if along == 2 else mask.mT.contiguous(), k_space))
    inside = abs(image) > 0
    assert (maps.abs().sum(0) > 0)[inside].float().mean() > 0.99
    covered = inside & (maps.abs().sum(0) > 0)
    correlation = (true.conj() * maps).sum(0).abs()[covered]
    assert correlation.mean() > 0.998 and correlation.min() > 0.97


def test_empty_maps_are_an_error(monkeypatch):
    """Whatever the reason: nothing may be reconstructed with maps of zero."""
    _, _, k_space = smooth_coils(4)
    with pytest.raises(
        DataError, match=r"the coil maps are empty: the 64 × 8 points .* leave this slice out, or give maps"
    ):
        espirit_maps(scan_of(middle(64, 8, (64, 64)), k_space), crop=1.5)


def test_maps_of_simulated_coils(disc):
    inside, k_space, true = disc
    maps = espirit_maps(scan_of(middle(SIZE, 24), k_space))
    power = maps.abs().square().sum(0)
    assert maps.shape == true.shape and maps.dtype == torch.complex64
    assert ((power == 0) | ((power - 1).abs() < 1e-5)).all()
    covered = inside & (power > 0)
    assert covered.sum() > 0.97 * inside.sum()
    correlation = (true.conj() * maps).sum(0).abs()[covered]  # 1 if equal up to a phase
    assert correlation.mean() > 0.999 and correlation.min() > 0.99


def sigpy_maps(k_space, width):
    """The reference, on the grid of k-space itself."""
    app = pytest.importorskip("sigpy.mri.app").EspiritCalib(k_space.numpy(), width, output_eigenvalue=True)
    app.show_pbar = False
    with np.errstate(all="ignore"):  # where the first coil sees nothing its phase is 0/0
        maps, eigenvalue = map(torch.from_numpy, app.run())
    return maps, eigenvalue.squeeze(0)


def unlike(maps, other):
    """How far maps lie apart at most, whatever their phases at each pixel."""
    turned = other * torch.polar(torch.ones(maps.shape[1:]), (maps * other.conj()).sum(0).angle())
    return (maps - turned).abs().max()


@pytest.mark.parametrize(
    ("coils", "size", "kept"), [(2, (48, 48), None), (8, (61, 90), None), (8, (64, 64), 5), (40, (64, 57), None)]
)
def test_maps_are_those_of_sigpy(coils, size, kept):
    """To 1e-3 where both are sure of an object; few, many and compressed coils, odd sides."""
    image, _, k_space = smooth_coils(coils, *size)
    scan = scan_of(middle(24, 24, size), k_space + 0.002 * noise(k_space.shape))
    scan = scan if kept is None else compress(scan, kept)
    reference, eigenvalue = sigpy_maps(scan.k_space, 24)
    maps, inside = espirit_maps(scan), (eigenvalue > 0.951) & (abs(image) > 0)
    assert inside.sum() > 0.95 * (abs(image) > 0).sum()
    assert unlike(maps[:, inside], reference[:, inside]) < 1e-3
    assert ((maps.abs().sum(0) > 0) != (eigenvalue > 0.95)).float().mean() < 1e-3


def test_real_maps_are_those_of_sigpy():
    """Inside the head: on the scan's own grid, of which ours is coarser and interpolated."""
    if not (SHARED / "brain_8ch_R8.npy").is_file():
        pytest.skip(f"{SHARED} is absent")
    (scan,) = import_scans([SHARED / "brain_8ch_R8.npy"])
    reference, eigenvalue = sigpy_maps(scan.k_space, 24)
    maps, inside = espirit_maps(scan), eigenvalue > 0.951
    assert (maps.abs().sum(0) > 0)[inside].float().mean() > 0.998
    correlation = (reference.conj() * maps).sum(0).abs()[inside & (maps.abs().sum(0) > 0)]
    assert correlation.min() > 0.999 and correlation.mean() > 0.9999


def test_strongest_eigenvectors():
    """Of eigenvalues as close as .95 and 1, and of the zero matrix, which has none."""
    basis, _ = torch.linalg.qr(noise((50, 6, 6)))
    values = torch.linspace(0.2, 1, 50)[:, None] * torch.tensor([1, 0.95, 0.7, 0.1, 0, 0])
    matrices = torch.cat([basis @ (values[..., None] * basis.mH), torch.zeros(1, 6, 6)])
    vectors, found = coil_maps._strongest_eigenvector(matrices)
    assert (found[:50] - values[:, 0]).abs().max() < 1e-5 and found[50] == 0 and not vectors[:, 50].any()
    assert ((vectors[:, :50].T * basis[..., 0].conj()).sum(1).abs() - 1).abs().max() < 1e-5


def test_memory_is_bounded_and_bits_are_not_changed_by_it(disc, monkeypatch):
    """A row of the grid at a time, or all pixels at once: the same maps, and as often as they are made."""
    _, k_space, _ = disc
    scan, sizes, original = scan_of(middle(SIZE, 24), k_space), [], coil_maps._strongest_eigenvector

    def counting(matrices):
        sizes.append(len(matrices))
        return original(matrices)

    monkeypatch.setattr(coil_maps, "_strongest_eigenvector", counting)
    whole = espirit_maps(scan)
    assert sizes == [SIZE**2] and torch.equal(whole, espirit_maps(scan))
    sizes.clear()
    monkeypatch.setattr(coil_maps, "CHUNK_BYTES", 1)
    by_rows = espirit_maps(scan)
    assert sizes == [SIZE] * SIZE
    torch.testing.assert_close(by_rows, whole, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_maps_are_made_where_the_data_lie(disc):
    _, k_space, _ = disc
    scan = scan_of(middle(SIZE, 24), k_space)
    moved = replace(scan, k_space=scan.k_space.cuda(), mask=scan.mask.cuda())
    maps = espirit_maps(moved)
    assert maps.is_cuda and unlike(maps.cpu(), espirit_maps(scan)) < 1e-3
    assert torch.equal(maps, espirit_maps(moved))


def test_only_the_calibration_region_is_read(disc):
    _, k_space, _ = disc
    mask = middle(24, 24)
    spoilt = torch.where(mask, k_space, torch.nan)
    maps = espirit_maps(replace(scan_of(mask, k_space), k_space=spoilt))
    assert torch.equal(maps, espirit_maps(scan_of(mask, k_space)))


def test_separate_calibration_lines_are_used(disc):
    _, k_space, _ = disc
    sparse = middle(SIZE, SIZE)
    sparse[..., ::2] = False
    calibration = scan_of(middle(SIZE, 24), k_space)
    scan = replace(scan_of(sparse, k_space), calibration=calibration)
    assert torch.equal(espirit_maps(scan), espirit_maps(calibration))


def test_one_coil_has_the_map_one():
    assert torch.equal(
        espirit_maps(scan_of(middle(3, 3), noise((1, SIZE, SIZE)))), torch.ones(1, SIZE, SIZE, dtype=torch.complex64)
    )


def test_outside_span(disc):
    _, k_space, true = disc
    scan = scan_of(middle(24, 24), k_space)
    assert outside_span(scan, true) < 0.005
    orthogonal = torch.stack([-true[1::2].conj(), true[::2].conj()], 1).flatten(0, 1)
    assert outside_span(scan, orthogonal) > 0.99
    assert outside_span(scan, torch.zeros_like(true)) == 1


def test_outside_span_of_a_constant_map_is_exact():
    """Coils (1, 0) and data of energy 9 in the first and 1 in the second: a tenth is outside."""
    mask = middle(16, 16)
    image = torch.where(mask, noise((1, SIZE, SIZE)), 0)
    scan = scan_of(mask, torch.cat([3 * image, 1j * image]))
    maps = torch.stack([torch.ones(SIZE, SIZE), torch.zeros(SIZE, SIZE)]).to(torch.complex64)
    assert abs(outside_span(scan, maps) - 0.1) < 1e-5


def test_compression_keeps_the_span_and_white_noise():
    """Six coils that are mixtures of two: two are enough, no energy is lost, and noise keeps its covariance."""
    mask = middle(SIZE, 12)
    mixture = noise((6, 2), 1)
    k_space = torch.tensordot(mixture, noise((2, SIZE, SIZE)), dims=1)
    scan = replace(scan_of(mask, k_space), noise=noise((6, 100_000), 2))
    small = compress(scan, 2)
    assert small.k_space.shape == (2, SIZE, SIZE) and small.provenance["coils"] == [6, 2]
    torch.testing.assert_close(small.k_space.norm(), scan.k_space.norm())
    covariance = small.noise @ small.noise.mH / 100_000
    assert (covariance - torch.eye(2)).abs().max() < 0.02
    assert compress(scan, 6) is scan


def test_real_maps_agree_with_stored_ones():
    """Computed with the defaults of sigpy from the same scan."""
    if not (SHARED / "brain_8ch_espirit_maps.npz").is_file():
        pytest.skip(f"{SHARED} is absent")
    (scan,) = import_scans([SHARED / "brain_8ch_R8.npy"])
    stored = torch.from_numpy(np.load(SHARED / "brain_8ch_espirit_maps.npz")["maps"])
    assert calibration_size(scan) == (24, 24)
    maps = espirit_maps(scan)
    inside = stored.abs().sum(0) > 0
    correlation = (stored.conj() * maps).sum(0).abs()[inside]
    assert correlation[correlation > 0].min() > 0.999  # 0: cut at the rim, which the coarser grid moves a little
    assert (correlation > 0).float().mean() > 0.998
    assert outside_span(scan, maps) < 0.002
