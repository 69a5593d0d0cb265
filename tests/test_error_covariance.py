"""C_t: what is assumed, what is measured, and that a draw has the law that it says (SPEC §13)."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from helpers import Keep, random_tensor, unit_coils
from oracle import SIZE, Dense, GaussianOracle, assert_law
from torch.testing import assert_close

from msm import (
    Draw,
    FullMask,
    Measurement,
    MultiCoil,
    Problem,
    Proximal,
    Sampler,
    VPSchedule,
    measure_error,
    reconstruct,
)
from msm.error_covariance import ColourParts, ErrorModel, ErrorSpectrum
from msm.masks import BoxMasks
from msm.mri_prior import ImagePrior
from msm.operators import Undersampling, super_resolution

NUMBER = 20_000
EVERYTHING = FullMask(SIZE)


class ExactError:
    """The true C_t = (Σ⁻¹ + σ_t⁻²)⁻¹ of a Gaussian field, dense, real or complex with parts alike."""

    def __init__(self, covariance):
        self.values, self.vectors = torch.linalg.eigh(covariance)
        self.assumed = self

    def of(self, problem, noise_std):
        return self

    def draw(self, white, sigma):
        return self._times(white, (1 / (1 / self.values + sigma**-2)).sqrt())

    def solve(self, normal, b, noise_std, sigma, iterations):
        d = len(self.values)
        units = torch.eye(d, dtype=b.dtype).view(-1, 1, SIZE, SIZE)
        matrix = normal(units).flatten(1).to(torch.complex128 if b.is_complex() else torch.float64)
        matrix = matrix + noise_std**2 * (self.vectors * (1 / self.values + sigma**-2)) @ self.vectors.T
        return torch.linalg.solve(matrix, b.flatten(1).to(matrix.dtype).T).T.view_as(b).to(b.dtype)

    def _times(self, x, weights):
        matrix = ((self.vectors * weights) @ self.vectors.T).float()
        return (x.flatten(1) @ matrix.to(x.dtype)).view_as(x)


def oracle_with_error():
    oracle = GaussianOracle((SIZE, SIZE))
    oracle.error = ExactError(oracle.covariance)
    return oracle


def posterior(oracle, matrix, y, noise_std):
    """Mean and covariance of z given y."""
    precision = matrix.T @ matrix / noise_std**2 + torch.linalg.inv(oracle.covariance)
    covariance = torch.linalg.inv(precision)
    return covariance @ (matrix.T @ y) / noise_std**2, covariance


def one_gain_a_level(oracle):
    """The oracle under the full mask, which solves one system a level."""

    def denoiser(z_t, mask, t, transform):
        gain = oracle(
            torch.eye(SIZE**2).view(-1, 1, SIZE, SIZE), torch.ones_like(mask[:1]).expand(SIZE**2, -1, -1, -1), t
        )
        return (z_t.flatten(1) @ gain.flatten(1)).view_as(z_t)

    denoiser.schedule, denoiser.error = oracle.schedule, oracle.error
    return denoiser


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("warm_start", [None, 0.5])
def test_samples_are_the_posteriors_in_any_number_of_steps(steps, draws, warm_start):
    """Six sums of pixels in noise: mean and covariance of the samples are the closed form's, whatever the steps."""
    oracle, generator = oracle_with_error(), torch.Generator().manual_seed(1)
    matrix = torch.randn(6, SIZE**2, dtype=torch.float64, generator=generator) / 4
    y = oracle.sample(1, generator).flatten().double() @ matrix.T + 0.1 * torch.randn(6, generator=generator)
    problem = Problem(y.float().expand(NUMBER, -1), Dense(matrix), noise_std=0.1)
    sampler = Sampler(steps=steps, draws=draws, grid="log", warm_start=warm_start)
    how = {"masks": EVERYTHING, "sampler": sampler, "data_step": Draw()}
    z = reconstruct(one_gain_a_level(oracle), problem, seeds=range(NUMBER), **how)
    assert_law(z.flatten(1), *posterior(oracle, matrix, y, 0.1))


def test_the_maximiser_is_too_sure_where_the_draw_is_not():
    oracle, generator = oracle_with_error(), torch.Generator().manual_seed(1)
    matrix = torch.eye(SIZE**2, dtype=torch.float64)[::3]
    y = oracle.sample(1, generator).flatten().double() @ matrix.T
    problem = Problem(y.float().expand(2000, -1), Dense(matrix), noise_std=0.1)
    truth = posterior(oracle, matrix, y, 0.1)[1].trace()
    shares = {}
    for step in (Draw(), Proximal()):
        how = {"masks": EVERYTHING, "sampler": Sampler(steps=20, draws=1, grid="log"), "data_step": step}
        z = reconstruct(one_gain_a_level(oracle), problem, seeds=range(2000), **how)
        shares[type(step)] = (z.flatten(1).var(0).sum() / truth).item()
    assert abs(shares[Draw] - 1) < 0.05 and shares[Proximal] < 0.85


def test_a_draw_of_mri_has_the_covariance_of_data_and_assumption():
    """A ŷ = S T e^{iφ} m in real arithmetic: precision AᵀA/σ_y² + C⁻¹ of real and imaginary part."""
    noise_std, sigma = 0.3, 0.5
    transform, prior = unit_coils(3, SIZE), ImagePrior()
    operator = Keep(torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) < 0.6)
    y = operator.A(random_tensor((1, 3, SIZE, SIZE), torch.complex64))
    covariance = ErrorModel(prior).of(Problem(y, operator, transform, noise_std), noise_std)
    basis = torch.eye(2 * SIZE**2).view(-1, 2, SIZE, SIZE)
    maps = MultiCoil(transform.maps.expand(len(basis), -1, -1, -1))
    columns = operator.A(maps.forward(covariance.parts.together(basis))).flatten(1).T
    a = torch.cat([columns.real, columns.imag])
    power = prior.spectrum(y.shape[-2:], y.device)
    waves = torch.fft.fft2(torch.eye(SIZE**2).view(-1, SIZE, SIZE), norm="ortho").flatten(1).T
    spectra = [torch.fft.ifftshift(power * share).flatten() for share in (1, prior.phase_residual)]
    precision = a.T @ a / noise_std**2 + torch.eye(2 * SIZE**2) / sigma**2
    precision += torch.block_diag(*[(waves.mH @ torch.diag(1 / p).to(waves.dtype) @ waves).real for p in spectra])
    step = Draw(60).of(Problem(y.expand(NUMBER, -1, -1, -1), operator, transform, noise_std))
    noise = torch.Generator().manual_seed(4)
    z = step(torch.zeros_like(y).expand(NUMBER, -1, -1, -1), sigma, lambda like: _normal(like, noise))
    m = covariance.parts.apart(transform.adjoint(z)).flatten(1).double()
    covariance_of_m = torch.linalg.inv(precision.double())
    residual = torch.cat([y.real.flatten(), y.imag.flatten()]).double()
    assert_law(m, covariance_of_m @ (a.T.double() @ residual) / noise_std**2, covariance_of_m)


def _normal(like, generator):
    parts = torch.randn(*like.shape, 2, generator=generator)
    return torch.view_as_complex(parts) if like.is_complex() else parts[..., 0]


class Circular:
    """The exact denoiser of a circulant field of one or three independent channels, for one full or constant mask."""

    def __init__(self, size=16, length=2.0, std=0.5):
        self.schedule = VPSchedule()
        lag = torch.minimum(torch.arange(size), size - torch.arange(size))
        self.power = torch.fft.fft2(std**2 * torch.exp(-torch.hypot(lag[:, None].float(), lag.float()) / length)).real

    def sample(self, shape, generator):
        white = torch.fft.fft2(torch.randn(shape, generator=generator))
        return torch.fft.ifft2(white * self.power.sqrt()).real

    def __call__(self, z_t, mask, t, transform):
        a = self.schedule.alpha_bar(t)
        return torch.fft.ifft2(torch.fft.fft2(z_t) * sqrt(a) * self.power / (a * self.power + 1 - a)).real


def radial(power, spectrum):
    """The mean of a power over the bands of a spectrum."""
    radius = torch.hypot(torch.fft.fftfreq(16)[:, None], torch.fft.fftfreq(16)[None])
    nearest = (radius.clamp(min=1e-9).log()[..., None] - spectrum.frequencies.clamp(min=1 / 64).log()).abs().argmin(-1)
    return torch.stack([power[nearest == k].mean() for k in range(len(spectrum.frequencies))])


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_the_measured_error_is_the_true_one(rho):
    """Whole photos, with noise or without: (σ⁻² + P⁻¹)⁻¹; 500 samples tell each band to 10 %."""
    field, generator = Circular(), torch.Generator().manual_seed(0)
    z = field.sample((500, 3, 16, 16), generator)
    s = z + rho * torch.randn(z.shape, generator=generator)
    found = measure_error(
        field, [Measurement(s, torch.ones(500, 1, 16, 16, dtype=torch.bool), noise_std=rho)], generator
    )
    for level, sigma in enumerate(found.sigmas.tolist()):
        expected = radial(1 / (1 / field.power + sigma**-2), found)
        if sigma**2 < 2 * rho**2:  # noise hides it: known only to go on as σ²
            assert_close(found.power[level], found.power[level + 1] * (sigma / found.sigmas[level + 1]) ** 2)
        else:
            assert_close(found.power[level], expected.expand(3, -1), rtol=0.3, atol=0)


class Fixed:
    """An estimate that misses by an error of known covariance, whatever it is given: z_hat = z + error on the mask."""

    def __init__(self, z, error):
        self.schedule, self.estimate = VPSchedule(), z + error

    def __call__(self, z_t, mask, t, transform):
        return torch.where(mask, self.estimate, 0)


def test_missing_pixels_do_not_bias_the_measured_error():
    field, generator = Circular(), torch.Generator().manual_seed(0)
    error = field.sample((2000, 1, 16, 16), generator)
    mask = BoxMasks(16).sample(2000, generator)
    z = torch.where(mask, field.sample(error.shape, generator), torch.nan)  # what was not measured is not there
    denoiser = Fixed(torch.where(mask, z, 0), torch.where(mask, error, torch.nan))
    found = measure_error(denoiser, [Measurement(z, mask)], generator, levels=2)
    assert_close(found.power[0, 0], radial(field.power, found), rtol=0.15, atol=0.02)


def test_k_space_tells_the_error_of_the_image_where_it_was_measured():
    """One coil of constant sensitivity: the power of the image's error per real component, of measured columns only."""
    field, generator = Circular(), torch.Generator().manual_seed(0)
    error = torch.complex(*(field.sample((500, 1, 16, 16), generator) for _ in range(2)))
    transform = MultiCoil(torch.ones(1, 1, 16, 16, dtype=torch.complex64))
    mask = (torch.rand(500, 1, 1, 16, generator=generator) < 0.4).expand(-1, -1, 16, -1)
    values = torch.where(mask, random_tensor((500, 1, 16, 16), torch.complex64), torch.nan)
    denoiser = Fixed(torch.where(mask, values, 0), transform.forward(error))
    found = measure_error(denoiser, [Measurement(values, mask, transform.maps)], generator, levels=2)
    assert found.power.shape[1] == 1
    assert_close(found.power[0, 0], radial(field.power, found), rtol=0.15, atol=0.0)


def test_a_measured_error_replaces_what_is_assumed():
    """A draw without data has the measured power, in all colours and, of MRI, in the sum over both parts."""
    spectrum = ErrorSpectrum(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.1, 0.7]), torch.rand(2, 3, 3) + 0.1)
    nothing = Undersampling(torch.zeros(1, 1, 16, 16, dtype=torch.bool))
    z = torch.zeros(4000, 3, 16, 16)
    noise = torch.Generator().manual_seed(0)
    step = Draw().of(Problem(z, nothing, noise_std=0.1), ErrorModel(measured=spectrum))
    drawn = step(z, 0.1, lambda like: _normal(like, noise))
    parts = ColourParts(3, z.device).apart(drawn)
    power = torch.fft.rfft2(parts, norm="ortho").abs().square().mean(0)
    assert_close(power, spectrum.on((16, 16), z.device)(0.1), rtol=0.15, atol=0)
    assert_close(spectrum.on((16, 16), z.device)(0.1)[:, 0, 0], spectrum.power[0, :, 0])
    assert_close(spectrum.on((16, 16), z.device)(50.0)[:, 8, 8], spectrum.power[1, :, 2])

    one = replace(spectrum, power=spectrum.power[:, :1])
    y = torch.zeros(1, 1, 16, 16, dtype=torch.complex64)
    flat = MultiCoil(torch.ones(1, 1, 16, 16, dtype=torch.complex64))
    seen = Problem(y + 1, Undersampling(torch.ones(1, 1, 16, 16, dtype=torch.bool)), flat, 0.1)
    covariance = ErrorModel(measured=one).of(seen, 0.1)
    assert_close((1 / covariance.precision(0.1)).mean(1), one.on((16, 16), y.device)(0.1))


def test_samples_do_not_depend_on_their_batch():
    oracle = oracle_with_error()
    y = oracle.sample(1).expand(4, -1, -1, -1)
    operator = Undersampling(torch.rand(1, 1, SIZE, SIZE) < 0.5)
    how = {"masks": EVERYTHING, "sampler": Sampler(steps=3, grid="log"), "data_step": Draw()}
    both = reconstruct(oracle, Problem(operator.A(y), operator, noise_std=0.1), seeds=[5, 6, 7, 8], **how)
    one = reconstruct(oracle, Problem(operator.A(y[:1]), operator, noise_std=0.1), seeds=[7], **how)
    assert_close(both[2:3], one, rtol=1e-5, atol=1e-6) and both.std(0).min() > 0


def test_what_does_not_go_with_a_draw_is_refused():
    oracle, y = oracle_with_error(), torch.zeros(1, 1, SIZE, SIZE)
    problem = Problem(y, Undersampling(y == 0), noise_std=0.1)
    with pytest.raises(ValueError, match=r"eta must be 1, got 0\.85"):
        reconstruct(oracle, problem, seeds=[0], masks=EVERYTHING, sampler=Sampler(eta=0.85), data_step=Draw())
    three = ErrorSpectrum(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.7]), torch.ones(2, 3, 2))
    with pytest.raises(ValueError, match="measured on 3 parts"):
        Draw().of(problem, ErrorModel(measured=three))


@pytest.mark.parametrize(
    "change",
    [
        {"power": torch.ones(2, 2)},
        {"power": torch.ones(2, 2, 3)},
        {"power": torch.zeros(2, 3, 2)},
        {"power": torch.full((2, 3, 2), torch.nan)},
        {"sigmas": torch.tensor([1.0, 0.1])},
        {"frequencies": torch.tensor([0.1, 0.7])},
    ],
)
def test_a_table_that_is_none_is_refused(change):
    good = ErrorSpectrum(torch.tensor([0.1, 1.0]), torch.tensor([0.0, 0.7]), torch.ones(2, 3, 2))
    with pytest.raises(ValueError, match=r"power must|must ascend"):
        replace(good, **change)


def test_an_error_needs_measurements():
    with pytest.raises(ValueError, match="was not measured"):
        measure_error(Circular(), [], torch.Generator())


def test_blur_and_its_noise_need_few_iterations():
    """The draw of × 2 converges: 20 iterations and 200 agree to a hundredth of the spread."""
    operator = super_resolution((1, 16, 16), factor=2)
    y = operator.A(Circular().sample((1, 1, 16, 16), torch.Generator().manual_seed(0)))
    problem, z = Problem(y, operator, noise_std=0.01), torch.zeros(1, 1, 16, 16)
    found = [
        Draw(n).of(problem)(z, 0.3, lambda like: _normal(like, torch.Generator().manual_seed(1))) for n in (20, 200)
    ]
    assert (found[0] - found[1]).abs().max() < 0.003
