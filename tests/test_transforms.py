"""T: values against the published MRI operator, adjointness, Tᴴ T = I; and the measurement that carries it."""

import pytest
import torch
from helpers import assert_adjoint, golden_complex, golden_maps, random_tensor
from torch.testing import assert_close

from msm.measurement import Measurement
from msm.transforms import Identity, MultiCoil, fft2c, ifft2c


def normalised_maps(batch=2, coils=3, size=(8, 6), dtype=torch.complex128):
    maps = random_tensor((batch, coils, *size), dtype, seed=9)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


@pytest.mark.parametrize("prefix", ["", "b2_"])
def test_golden_mri_operator(golden, prefix):
    vectors, _ = golden("mri_operator")

    def read(name):
        return golden_complex(vectors[prefix + name])

    transform = MultiCoil(golden_maps(vectors[f"{prefix}smps"]))
    mask = vectors[f"{prefix}mask"].bool()
    x, y = read("x"), read("y")
    for name, value in {
        "fmult_non_mask_x": transform.forward(x),
        "fmult_x": torch.where(mask, transform.forward(x), 0),
        "ftran_non_mask_y": transform.adjoint(y),
        "ftran_y": transform.adjoint(torch.where(mask, y, 0)),
        "ftran_non_mask_of_fmult_non_mask_x": transform.adjoint(transform.forward(x)),
        "mask_only_y": Measurement(y, mask).values,
    }.items():
        expected = read(name)
        assert_close(value, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item(), msg=name)


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_multicoil_is_an_isometry_with_its_adjoint(size):
    transform = MultiCoil(normalised_maps(size=size))
    assert_adjoint(transform, (2, 1, *size), torch.complex128)
    x = random_tensor((2, 1, *size), torch.complex128)
    assert_close(transform.adjoint(transform.forward(x)), x)
    assert_close(transform.forward(x).norm(), x.norm())


@pytest.mark.parametrize("whole_columns", [True, False])
def test_normal_is_adjoint_after_mask_after_forward(whole_columns):
    transform, generator = MultiCoil(normalised_maps()), torch.Generator().manual_seed(5)
    x = random_tensor((2, 1, 8, 6), torch.complex128)
    rows = 1 if whole_columns else 8
    mask = (torch.rand(2, 1, rows, 6, generator=generator) < 0.5).expand(-1, -1, 8, -1)
    expected = transform.adjoint(torch.where(mask, transform.forward(x), 0))
    assert_close(transform.normal(x, mask), expected)
    assert_close(transform.normal(x, mask.contiguous()), expected)


def test_one_set_of_maps_serves_a_batch():
    maps = normalised_maps(batch=1)
    x = random_tensor((3, 1, 8, 6), torch.complex128)
    together = MultiCoil(maps).forward(x)
    assert_close(together, MultiCoil(maps.expand(3, -1, -1, -1)).forward(x))
    assert_close(MultiCoil(maps).adjoint(together), x)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("whole_columns", [True, False])
def test_repeated_maps_have_the_bits_of_copied_ones(batch, whole_columns):
    maps = normalised_maps(batch, dtype=torch.complex64)
    repeated, copied = MultiCoil(maps).repeat(3), MultiCoil(maps.repeat_interleave(3, 0))
    x, z = (random_tensor((3 * batch, n, 8, 6), torch.complex64, seed=n) for n in (1, 3))
    mask = torch.rand(3 * batch, 1, 8, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    mask = mask[:, :, :1].expand(-1, -1, 8, -1) if whole_columns else mask
    assert torch.equal(repeated.forward(x), copied.forward(x))
    assert torch.equal(repeated.adjoint(z), copied.adjoint(z))
    assert torch.equal(repeated.normal(x, mask), copied.normal(x, mask))
    assert torch.equal(repeated.repeat(1).forward(x), copied.forward(x))
    assert repeated.maps.data_ptr() == maps.data_ptr()


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_fft_is_centred_and_orthonormal(size):
    x = random_tensor((2, 1, *size), torch.complex128)
    assert_close(ifft2c(fft2c(x)), x)
    flat = fft2c(torch.ones(size, dtype=torch.complex128))
    expected = torch.zeros(size, dtype=torch.complex128)
    expected[size[0] // 2, size[1] // 2] = (size[0] * size[1]) ** 0.5
    assert_close(flat, expected)


def test_identity():
    assert_adjoint(Identity(), (2, 3, 4, 4))
    x = random_tensor((2, 3, 4, 4), torch.float32)
    assert torch.equal(Identity().forward(x), x)


@pytest.mark.parametrize("maps", [torch.ones(1, 2, 4, 4), torch.ones(2, 4, 4, dtype=torch.complex64)])
def test_bad_maps(maps):
    with pytest.raises(ValueError, match="coil maps"):
        MultiCoil(maps)


# The measurement


def test_measurement_drops_what_was_not_measured():
    mask = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    values = torch.where(mask, torch.ones(2, 3, 4, 4), torch.nan)
    measurement = Measurement(values, mask, noise_std=torch.tensor([0.1, 0.2]))
    assert torch.equal(measurement.values, mask.float().expand(-1, 3, -1, -1))
    less = measurement.restrict(torch.ones_like(mask))
    assert torch.equal(less.mask, mask)
    assert not measurement.restrict(~mask).values.any()
    assert len(measurement) == 2
    item = measurement[1:]
    assert torch.equal(item.values, measurement.values[1:])
    assert item.noise_std.tolist() == pytest.approx([0.2])
    assert isinstance(measurement.transform, Identity)


def test_measurement_slices_its_maps():
    maps = normalised_maps()
    values = random_tensor(maps.shape, torch.complex128)
    mask = torch.ones(2, 1, 8, 6, dtype=torch.bool)
    assert torch.equal(Measurement(values, mask, maps)[1:].maps, maps[1:])
    assert torch.equal(Measurement(values, mask, maps[:1])[1:].transform.maps, maps[:1])


def test_measurement_builds_its_transform_once():
    maps = normalised_maps()
    measurement = Measurement(random_tensor(maps.shape, torch.complex128), torch.ones(2, 1, 8, 6).bool(), maps)
    assert measurement.transform is measurement.transform
    assert measurement[1:].transform is not measurement.transform


@pytest.mark.parametrize(
    ("values", "mask", "maps"),
    [
        (torch.ones(3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool), None),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4), None),
        (torch.ones(2, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool), None),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool), torch.ones(2, 2, 4, 4)),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool), torch.ones(3, 3, 4, 4)),
    ],
)
def test_bad_measurements(values, mask, maps):
    with pytest.raises(ValueError, match="must be"):
        Measurement(values, mask, maps)
