"""The baselines solve the problems they name: checked against dense solutions and optimality."""

import numpy as np
import pytest
import pywt
import torch

from msm.evaluate.classical import bicubic, biharmonic, cg_sense, l1_wavelet, total_variation, tune
from msm.evaluate.metrics import psnr
from msm.transforms import MultiCoil


def coil_maps(batch, coils, height, width):
    """Smooth complex maps around the field, one rotation per item, with Σ|C|² = 1."""
    sides = [torch.linspace(-1, 1, side, dtype=torch.float64) for side in (height, width)]
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    turns = torch.arange(coils).double() / coils + 0.1 * torch.arange(batch)[:, None]
    angle = 2 * torch.pi * turns[..., None, None]
    distance = (rows - 1.2 * angle.sin()) ** 2 + (columns - 1.2 * angle.cos()) ** 2
    maps = torch.polar(1 / (0.3 + distance), angle + rows * angle.cos())
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def column_mask(batch, height, width, keep=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = torch.rand(batch, 1, 1, width, generator=generator) < keep
    columns[..., width // 2 - 1 : width // 2 + 1] = True
    return columns.expand(batch, 1, height, width)


def acquisition(batch=2, coils=3, size=(6, 8), noise=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    transform = MultiCoil(coil_maps(batch, coils, *size))
    x = torch.randn(batch, 1, *size, dtype=torch.complex128, generator=generator)
    mask = column_mask(batch, *size, seed=seed)
    z = transform.forward(x)
    y = mask * (z + noise * torch.randn(z.shape, dtype=z.dtype, generator=generator))
    return x, y, mask, transform


def wavelet_sparse(batch=2, size=32, seed=0):
    """Images with 3 % of their db4 coefficients."""
    rng = np.random.default_rng(seed)
    _, slices = pywt.coeffs_to_array(pywt.wavedec2(np.zeros((size, size)), "db4", "periodization", level=2))
    images = []
    for _ in range(batch):
        w = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        w[size // 4 :] *= rng.random((size * 3 // 4, size)) < 0.03
        w[:, size // 4 :] *= rng.random((size, size * 3 // 4)) < 0.03
        image = pywt.waverec2(pywt.array_to_coeffs(w, slices, "wavedec2"), "db4", "periodization")
        images.append(image / abs(image).max())
    return torch.from_numpy(np.stack(images))[:, None]


def l1_norm(x, wavelet="db4"):
    """Σ|Ψ x| over the batch, computed apart from the module: level by level, image by image."""
    total = 0.0
    for image in x[:, 0].numpy():
        for _ in range(pywt.dwt_max_level(min(image.shape), wavelet)):
            image, details = pywt.dwt2(image, wavelet, "periodization")
            total += sum(abs(d).sum() for d in details)
        total += abs(image).sum()
    return total


def objective(x, y, mask, transform, regularisation):
    residual = mask * transform.forward(x) - y
    return 0.5 * residual.abs().square().sum().item() + regularisation * l1_norm(x)


@pytest.mark.parametrize("regularisation", [0.03, 0.3])
def test_cg_sense_equals_the_dense_least_squares_solution(regularisation):
    _, y, mask, transform = acquisition()
    found = cg_sense(y, mask, transform, regularisation=regularisation, iterations=60)
    for i in range(len(y)):
        one = MultiCoil(transform.maps[i : i + 1])
        basis = torch.eye(48, dtype=y.dtype).reshape(48, 1, 6, 8)
        A = (mask[i] * one.forward(basis)).flatten(1).T
        x = torch.linalg.solve(A.mH @ A + regularisation * torch.eye(48, dtype=y.dtype), A.mH @ y[i].flatten())
        torch.testing.assert_close(found[i].flatten(), x, atol=1e-8, rtol=0)


def test_cg_sense_of_an_item_does_not_depend_on_its_batch_or_its_units():
    _, y, mask, transform = acquisition()
    y = y * torch.tensor([1.0, 1e-6])[:, None, None, None]
    together = cg_sense(y, mask, transform, regularisation=0.1, iterations=5)
    for i in range(2):
        alone = cg_sense(
            y[i : i + 1],
            mask[i : i + 1],
            MultiCoil(transform.maps[i : i + 1]),
            regularisation=0.1,
            iterations=5,
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-18)
    large = cg_sense(1e6 * y, mask, transform, regularisation=0.1, iterations=5)
    torch.testing.assert_close(large, 1e6 * together, rtol=1e-10, atol=1e-12)


def test_cg_sense_runs_past_convergence_in_single_precision():
    _, y, mask, transform = acquisition()
    y[1] = 0
    single = MultiCoil(transform.maps.to(torch.complex64))
    found = cg_sense(y.to(torch.complex64), mask, single, regularisation=0.1, iterations=400)
    exact = cg_sense(y, mask, transform, regularisation=0.1, iterations=60)
    torch.testing.assert_close(found, exact.to(torch.complex64), atol=1e-5, rtol=0)
    assert (found[1] == 0).all()


def test_l1_wavelet_lowers_its_objective_and_beats_zero_filled():
    x = wavelet_sparse()
    transform = MultiCoil(coil_maps(2, 4, 32, 32))
    mask = column_mask(2, 32, 32, keep=0.4)
    y = mask * transform.forward(x)
    values, images = [], []
    for iterations in (1, 3, 10, 30, 100, 300):
        images.append(l1_wavelet(y, mask, transform, regularisation=1e-3, iterations=iterations))
        values.append(objective(images[-1], y, mask, transform, 1e-3))
    assert values == sorted(values, reverse=True)
    gain = torch.tensor(psnr(images[-1], x, convention="plain")) - torch.tensor(
        psnr(transform.adjoint(y), x, convention="plain")
    )
    assert (gain > 5).all()


def test_l1_wavelet_reaches_a_minimum():
    _, y, mask, transform = acquisition(size=(16, 16))
    x = l1_wavelet(y, mask, transform, regularisation=0.2, iterations=1000)
    least = objective(x, y, mask, transform, 0.2)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        step = size * torch.randn(x.shape, dtype=x.dtype, generator=generator)
        assert objective(x + step, y, mask, transform, 0.2) > least
    assert objective((1 - 1e-4) * x, y, mask, transform, 0.2) > least
    assert objective((1 + 1e-4) * x, y, mask, transform, 0.2) > least


def test_l1_wavelet_with_everything_measured_is_a_soft_threshold():
    x = torch.randn(1, 1, 16, 16, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    transform = MultiCoil(coil_maps(1, 3, 16, 16))
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    y = transform.forward(x)
    found = l1_wavelet(y, mask, transform, regularisation=0.5, iterations=1, wavelet="haar")
    c = pywt.wavedec2(x[0, 0].numpy(), "haar", "periodization", level=4)
    w, slices = pywt.coeffs_to_array(c)
    w = np.where(abs(w) > 0.5, w * (1 - 0.5 / np.maximum(abs(w), 0.5)), 0)
    wanted = pywt.waverec2(pywt.array_to_coeffs(w, slices, "wavedec2"), "haar", "periodization")
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=1e-12)


def test_l1_wavelet_takes_odd_sizes_and_keeps_single_precision():
    _, y, mask, transform = acquisition(size=(19, 30))
    single = MultiCoil(transform.maps.to(torch.complex64))
    found = l1_wavelet(y.to(torch.complex64), mask, single, regularisation=1e-3, iterations=50, wavelet="haar")
    assert found.shape == (2, 1, 19, 30) and found.dtype == torch.complex64
    residual = mask * single.forward(found) - y
    assert residual.norm() < 0.1 * y.norm()


def test_total_variation_of_a_step_moves_both_sides_towards_each_other():
    """Everything is measured by one coil: each side moves by λ over its number of columns, in any phase."""
    left, right, weight = 0.2 + 0.1j, 0.8 - 0.3j, 0.3
    x = torch.full((1, 1, 6, 8), left, dtype=torch.complex128)
    x[..., 3:] = right
    transform = MultiCoil(torch.ones(1, 1, 6, 8, dtype=torch.complex128))
    mask = torch.ones(1, 1, 6, 8, dtype=torch.bool)
    found = total_variation(transform.forward(x), mask, transform, regularisation=weight, iterations=2000)
    direction = (right - left) / abs(right - left)
    expected = x + weight * direction * torch.tensor([1 / 3] * 3 + [-1 / 5] * 5, dtype=torch.complex128)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    flat = total_variation(transform.forward(x), mask, transform, regularisation=9.0, iterations=2000)
    torch.testing.assert_close(flat, x.mean().expand_as(x), atol=1e-4, rtol=0)


def test_total_variation_recovers_a_piecewise_constant_image_from_half_of_k_space():
    _, _, mask, transform = acquisition(size=(16, 16))
    x = torch.full((2, 1, 16, 16), 0.1, dtype=torch.complex128)
    x[..., 4:12, 5:11] = 0.9 + 0.2j
    y = mask * transform.forward(x)
    found = total_variation(y, mask, transform, regularisation=1e-4, iterations=1500)
    assert (found - x).abs().max() < 0.01 < 0.1 < (transform.adjoint(y) - x).abs().max()
    alone = total_variation(y[1:], mask[1:], MultiCoil(transform.maps[1:]), regularisation=1e-4, iterations=1500)
    torch.testing.assert_close(alone, found[1:])


def test_biharmonic_keeps_known_pixels_and_fills_a_plane():
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    x = torch.stack([0.5 * rows + 0.3 * columns, 0.2 * rows - 0.4 * columns]).expand(2, 2, 16, 16)
    mask = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    mask[0, :, 5:9, 6:11] = False  # the second image has nothing to fill
    y = torch.where(mask, x, torch.nan)
    found = biharmonic(y, mask)
    kept = mask.expand_as(x)
    assert torch.equal(found[kept], x[kept])
    torch.testing.assert_close(found, x, atol=1e-4, rtol=0)


def test_bicubic_enlarges_and_keeps_constants():
    y = torch.full((2, 3, 5, 4), 0.25)
    found = bicubic(y, 4)
    assert found.shape == (2, 3, 20, 16)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))


def test_tune_takes_the_best_of_the_grid():
    truth = torch.full((2, 1, 4, 4), 2.0)

    def closeness(x_hat, x):
        return (-(x_hat - x).square().mean((1, 2, 3))).tolist()

    assert tune(lambda p: p * torch.ones_like(truth), [0.1, 1.8, 2.5], truth, closeness) == 1.8
    assert tune(lambda p: sum(p) * torch.ones_like(truth), [(1, 2), (1, 1)], truth, closeness) == (1, 1)
    with pytest.raises(ValueError, match="parameter_grid is empty"):
        tune(lambda p: truth, [], truth, closeness)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, m, T: cg_sense(y, m[:1], T, regularisation=0.1, iterations=3), "mask must be bool"),
        (lambda y, m, T: cg_sense(y, m.double(), T, regularisation=0.1, iterations=3), "mask must be bool"),
        (lambda y, m, T: cg_sense(y, m, T, regularisation=-1.0, iterations=3), "regularisation must be 0 or"),
        (
            lambda y, m, T: l1_wavelet(y, m, T, regularisation=0.1, iterations=0),
            "iterations must be at least 1",
        ),
        (
            lambda y, m, T: l1_wavelet(y, m, T, regularisation=0.1, iterations=1, wavelet="bior4.4"),
            "not an orthogonal wavelet",
        ),
        (lambda y, m, T: biharmonic(y.real, m & False), "image 0: the mask keeps no pixel"),
        (lambda y, m, T: bicubic(y.real, 0), "factor must be at least 1"),
    ],
)
def test_errors_are_one_line(call, message):
    _, y, mask, transform = acquisition()
    with pytest.raises(ValueError, match=message) as error:
        call(y, mask, transform)
    assert "\n" not in str(error.value)
