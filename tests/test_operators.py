import re
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from helpers import assert_adjoint, dense_matrix, random_tensor, unit_coils

from msm import operators as ops

PHOTO = (3, 8, 8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


random_inpainting = partial(ops.random_inpainting, generator=seeded())


def masks(batch, height, width, seed=5):
    return torch.rand(batch, 1, height, width, generator=seeded(seed)) < 0.4


def per_item(operator):
    return any(buffer.ndim == 4 and len(buffer) > 1 for buffer in operator.buffers())


# name: (operator, shape of one z, dtype, H Hᴴ invertible)
CASES = {
    "box": (ops.box_inpainting(PHOTO, hole=4), PHOTO, torch.float64, False),
    "box odd": (ops.box_inpainting((1, 7, 9), hole=3), (1, 7, 9), torch.float64, False),
    "random": (ops.random_inpainting(PHOTO, generator=seeded(), kept=0.3), PHOTO, torch.float64, False),
    "k-space": (ops.Undersampling(masks(1, 8, 6)), (2, 8, 6), torch.complex128, False),
    "sr 4": (ops.super_resolution(PHOTO), PHOTO, torch.float64, True),
    "sr 4, complex": (ops.super_resolution((1, 12, 8)), (1, 12, 8), torch.complex128, True),
    "sr 3, odd": (ops.super_resolution((2, 9, 6), factor=3), (2, 9, 6), torch.float64, True),
    "gaussian": (ops.gaussian_blur(PHOTO, sigma=0.7, rcond=1e-6), PHOTO, torch.float64, True),
    "gaussian odd": (ops.gaussian_blur((1, 7, 9), sigma=1.1, rcond=1e-6), (1, 7, 9), torch.float64, True),
    "gaussian truncated": (ops.gaussian_blur(PHOTO, sigma=2.0), PHOTO, torch.float64, False),
    "motion with zeros": (ops.motion_blur((1, 8, 9), length=3, rcond=1e-6), (1, 8, 9), torch.float64, False),
    "motion oblique": (ops.motion_blur((1, 9, 8), length=4.5, angle=30), (1, 9, 8), torch.float64, False),
    "mean": (ops.colorization(PHOTO), PHOTO, torch.float64, True),
    "luminance": (ops.WeightedSum(torch.tensor([0.299, 0.587, 0.114])), (3, 5, 7), torch.float64, True),
    "per-item kernel": (ops.Convolution(torch.rand(3, 1, 8, 8), rcond=1e-4), PHOTO, torch.float64, False),
    "per-item mask": (ops.Undersampling(masks(3, 8, 8)), PHOTO, torch.complex128, False),
}
FIELDS = ("operator", "shape", "dtype", "onto")
SHARED = {name: case for name, case in CASES.items() if not per_item(case[0])}  # one matrix for all items
cases = pytest.mark.parametrize(FIELDS, CASES.values(), ids=CASES)
shared_cases = pytest.mark.parametrize(FIELDS, SHARED.values(), ids=SHARED)


@cases
def test_adjoint_and_linear(operator, shape, dtype, onto):
    assert_adjoint(operator, (3, *shape), dtype)


@cases
def test_pseudo_inverse_identities(operator, shape, dtype, onto):
    z = random_tensor((3, *shape), dtype)
    y = operator.A(z)
    projected = operator.A_dagger(y)
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(operator.A_dagger(operator.A(projected)), projected, **close)
    if onto:
        y = random_tensor(y.shape, y.dtype, seed=1)
        torch.testing.assert_close(operator.A(operator.A_dagger(y)), y, **close)
    elif getattr(operator, "rcond", 0) < 0.01:
        torch.testing.assert_close(operator.A(projected), y, rtol=0, atol=1e-4)
    else:  # a truncated pseudo-inverse: what is lost lies below the threshold
        assert (operator.A(projected) - y).norm() <= operator.rcond * z.norm()


@shared_cases
def test_pseudo_inverse_is_that_of_the_dense_matrix(operator, shape, dtype, onto):
    matrix = dense_matrix(operator.A, shape, dtype)
    expected = torch.linalg.pinv(matrix, rtol=getattr(operator, "rcond", 1e-6))
    shape_y = operator.A(torch.zeros(1, *shape, dtype=dtype)).shape[1:]
    torch.testing.assert_close(dense_matrix(operator.A_dagger, shape_y, dtype), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(dense_matrix(operator.A_adjoint, shape_y, dtype), matrix.mH, rtol=0, atol=1e-12)


@cases
def test_single_precision_batch_and_devices(operator, shape, dtype, onto):
    z = random_tensor((3, *shape), dtype)
    y = operator.A(z)
    single = torch.complex64 if dtype.is_complex else torch.float32
    y32 = operator.A(z.to(single))
    assert y32.dtype == single
    torch.testing.assert_close(y32, y.to(single), rtol=0, atol=1e-5)
    if onto:
        torch.testing.assert_close(operator.A(operator.A_dagger(y32)), y32, rtol=0, atol=1e-4)
    if not per_item(operator):
        torch.testing.assert_close(operator.A(z[:1]), y[:1], rtol=0, atol=1e-12)
    for back in (operator.A_adjoint, operator.A_dagger):
        assert back(operator.A(z.to("meta"))).device.type == "meta"
        assert back(y).shape == z.shape


@pytest.mark.gpu
@cases
def test_on_cuda(operator, shape, dtype, onto):
    import copy

    z = random_tensor((3, *shape), dtype)
    expected = operator.A_dagger(operator.A(z))
    for moved in (operator, copy.deepcopy(operator).cuda()):
        torch.testing.assert_close(moved.A_dagger(moved.A(z.cuda())).cpu(), expected, rtol=0, atol=1e-8)


def test_masked_entries_are_never_read():
    operator = ops.box_inpainting((3, 8, 8), hole=4)
    z = torch.ones(1, 3, 8, 8)
    z[..., 2:6, 2:6] = torch.nan
    assert operator.A(z).isfinite().all()
    assert operator.A(z).sum() == 3 * (64 - 16)


def test_published_box_is_central():
    mask = ops.box_inpainting((3, 128, 128)).mask
    assert not mask[..., 32:96, 32:96].any()
    assert mask.sum() == 128 * 128 - 64 * 64


def test_random_mask_has_exact_count_and_follows_the_generator():
    make = lambda seed: ops.random_inpainting((3, 9, 8), generator=seeded(seed), kept=0.25).mask  # noqa: E731
    mask = make(0)
    assert mask.shape == (1, 1, 9, 8) and mask.sum() == 18
    assert (mask == make(0)).all()
    assert not (mask == make(1)).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_is_antialiased_bicubic_inside(factor):
    z = random_tensor((1, 3, 48, 32), torch.float64)
    expected = torch.nn.functional.interpolate(z, scale_factor=1 / factor, mode="bicubic", antialias=True)
    y = ops.super_resolution((3, 48, 32), factor=factor).A(z)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(y[inside], expected[inside], rtol=0, atol=1e-6)


def test_motion_kernel_has_its_length_and_direction():
    def kernel(**params):
        return torch.roll(ops.motion_blur((1, 9, 9), **params).kernel[0, 0], (4, 4), (0, 1))

    third = torch.full((3,), 1 / 3)
    torch.testing.assert_close(kernel(length=3)[4, 3:6], third)
    torch.testing.assert_close(kernel(length=3, angle=90)[3:6, 4], third)
    torch.testing.assert_close(kernel(length=1), kernel(length=1).round())
    oblique = kernel(length=5, angle=45)
    assert oblique[3, 5] > 0.05 > oblique[3, 3]  # up and right, not up and left
    torch.testing.assert_close(oblique, oblique.flip(0, 1))


def test_gaussian_kernel_has_its_width():
    kernel = ops.gaussian_blur((1, 32, 40), sigma=2.0).kernel[0, 0]
    assert kernel[1, 0] / kernel[0, 0] == pytest.approx(torch.exp(torch.tensor(-1 / 8)).item())
    assert kernel.sum().item() == pytest.approx(1)


def test_truncation_bounds_the_noise():
    noise = 0.01 * random_tensor((4, 3, 64, 64), torch.float64)
    exact = ops.gaussian_blur((3, 64, 64), sigma=2.0, rcond=1e-6).A_dagger(noise)
    default = ops.gaussian_blur((3, 64, 64), sigma=2.0).A_dagger(noise)
    assert default.std() < 0.2 / 2
    assert exact.std() > 10


def test_agrees_with_deepinv():
    from deepinv import physics

    z = random_tensor((2, 3, 16, 24), torch.float32)
    shape = (3, 16, 24)
    mask = masks(1, 16, 24)
    taps = torch.exp(-(torch.arange(-3, 4) ** 2) / 2.0)
    filter_ = torch.outer(taps, taps)[None, None]
    kernel = torch.roll(torch.nn.functional.pad(filter_, (0, 17, 0, 9)), (-3, -3), (-2, -1))
    pairs = [
        (ops.Undersampling(mask), physics.Inpainting(img_size=shape, mask=mask.float())),
        (ops.colorization(shape), physics.Decolorize(srf="flat")),
        (ops.Convolution(kernel), physics.BlurFFT(img_size=shape, filter=filter_)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.A(z), theirs.A(z), rtol=0, atol=1e-4)
        back = ours.A_dagger(ours.A(z))
        torch.testing.assert_close(back, theirs.A_dagger(theirs.A(z)), rtol=0, atol=1e-2)
    theirs = physics.Downsampling(img_size=shape, filter="bicubic", factor=4)
    shifted = torch.roll(z, (1, 1), (-2, -1))  # ours is centred on the 4×4 block, theirs is not
    torch.testing.assert_close(ops.super_resolution(shape).A(shifted), theirs.A(z), rtol=0, atol=1e-5)


def test_gradient_flows():
    z = random_tensor((1, 3, 8, 8), torch.float64).requires_grad_()
    operator = ops.super_resolution((3, 8, 8))
    operator.A(z).square().sum().backward()
    torch.testing.assert_close(z.grad, 2 * operator.A_adjoint(operator.A(z.detach())))


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (ops.box_inpainting, {"hole": 17}, "hole must be a whole number from 1 to 16, got 17"),
        (ops.box_inpainting, {"hole": "8"}, "got '8'"),
        (random_inpainting, {"kept": 1.5}, "kept must be a finite number from 0 to 1, got 1.5"),
        (random_inpainting, {"kept": 0.0}, "no measured pixel"),
        (ops.super_resolution, {"factor": 3}, "factor 3 does not divide the image size 16×16"),
        (ops.super_resolution, {"factor": 2.5}, "factor must be a whole number"),
        (ops.gaussian_blur, {"sigma": 0}, "sigma must be"),
        (ops.gaussian_blur, {"rcond": -1}, "rcond must be"),
        (ops.motion_blur, {"length": 17}, "length must be"),
        (ops.motion_blur, {"angle": float("nan")}, "angle must be a finite number, got nan"),
    ],
)
def test_parameters_out_of_range_are_refused_in_one_clear_line(make, params, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        make((3, 16, 16), **params)
    assert "\n" not in str(error.value)


def test_a_problem_knows_the_shape_of_z_and_what_y_shows_by_itself():
    operator, x = ops.super_resolution((3, 16, 24), factor=4), random_tensor((2, 3, 16, 24), torch.float32)
    problem = ops.Problem(operator.A(x), operator)
    assert problem.shape == (3, 16, 24) and problem.noise_std == 0
    torch.testing.assert_close(problem.input, operator.A_dagger(operator.A(x)))
    transform, mask = unit_coils(batch=2), masks(2, 8, 8)
    z = transform.forward(random_tensor((2, 1, 8, 8), torch.complex64))
    problem = ops.Problem(torch.where(mask, z, 0), ops.Undersampling(mask), transform)
    assert problem.shape == (3, 8, 8)
    torch.testing.assert_close(problem.input, transform.adjoint(torch.where(mask, z, 0)))
    with pytest.raises(FrozenInstanceError):
        problem.noise_std = 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: ops.Undersampling(torch.ones(1, 1, 4, 4)),
        lambda: ops.Undersampling(torch.ones(4, 4, dtype=torch.bool)),
        lambda: ops.Convolution(torch.ones(4, 4)),
        lambda: ops.WeightedSum(torch.zeros(3)),
        lambda: ops.gaussian_blur((1, 8, 8), sigma=1.0).A(torch.zeros(1, 1, 8, 9)),
        lambda: ops.super_resolution((1, 8, 8)).A_dagger(torch.zeros(1, 1, 8, 8)),
        lambda: ops.colorization((3, 8, 8)).A(torch.zeros(1, 1, 8, 8)),
    ],
)
def test_classes_refuse_what_does_not_fit(make):
    with pytest.raises(ValueError):
        make()
