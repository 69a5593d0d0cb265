"""What tests of linear operators, transforms and samplers share."""

import torch
from safetensors.torch import save_file

from msm.denoiser import PartialDenoiser
from msm.network import load_published_weights
from msm.schedule import VPSchedule
from msm.transforms import MultiCoil


def random_tensor(shape, dtype, seed=0):
    """White Gaussian noise, real or complex."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dot(a, b):
    """⟨a, b⟩ = Σ conj(a) b."""
    return torch.vdot(a.flatten(), b.flatten())


def assert_adjoint(operator, shape_z, dtype=torch.float64):
    """⟨A z, y⟩ = ⟨z, Aᴴ y⟩, both linear, for A/A_adjoint (operators) or forward/adjoint (transforms)."""
    if hasattr(operator, "A"):
        forward, adjoint = operator.A, operator.A_adjoint
    else:
        forward, adjoint = operator.forward, operator.adjoint
    z1, z2 = (random_tensor(shape_z, dtype, seed) for seed in (1, 2))
    y1 = forward(z1)
    u1, u2 = (random_tensor(y1.shape, y1.dtype, seed) for seed in (3, 4))
    tolerance = 1e-10 if torch.finfo(y1.dtype).bits == 64 else 1e-4
    scale = (y1.norm() * u1.norm()).item()
    assert abs(dot(y1, u1) - dot(z1, adjoint(u1))).item() <= tolerance * scale
    a = 0.7 if not dtype.is_complex else 0.7 - 1.3j
    torch.testing.assert_close(forward(a * z1 + z2), a * y1 + forward(z2), rtol=tolerance, atol=tolerance)
    expected = a * adjoint(u1) + adjoint(u2)
    torch.testing.assert_close(adjoint(a * u1 + u2), expected, rtol=tolerance, atol=tolerance)


def dense_matrix(function, shape, dtype=torch.float64):
    """The matrix of a linear function of one (1, *shape) item, columns in flattened order."""
    size = torch.Size(shape).numel()
    return function(torch.eye(size, dtype=dtype).view(size, *shape)).reshape(size, -1).T


def golden_complex(k):
    """(B, 2, H, W, coils), real and imaginary channel -> complex (B, coils, H, W); (B, 2, H, W) -> (B, 1, H, W)."""
    k = k if k.ndim == 5 else k[..., None]
    return torch.view_as_complex(k.permute(0, 4, 2, 3, 1).contiguous())


def golden_maps(smps):
    """(B, 1, H, W, coils, 2) -> complex (B, coils, H, W)."""
    return torch.view_as_complex(smps.contiguous())[:, 0].movedim(-1, 1).contiguous()


def golden_denoiser(golden, name, folder):
    """The partial denoiser on a published tiny network, adm_tiny_rgb or adm_tiny_mri."""
    weights, _ = golden(f"{name}_weights")
    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    settings = golden(name)[1]["settings"]
    return PartialDenoiser(load_published_weights(path, **settings).eval(), VPSchedule())


def scheduled(function):
    """A function (z_t, mask, t, transform) -> ŝ as a denoiser: with a schedule."""
    function.schedule = VPSchedule()
    return function


def unit_coils(coils=3, size=8, batch=1, seed=0):
    """White coil maps whose squares add up to 1."""
    maps = random_tensor((batch, coils, size, size), torch.complex64, seed)
    return MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())


@scheduled
def half(z_t, mask, t, transform):
    """The denoiser that halves what it sees of an image."""
    return torch.where(mask, transform.forward(transform.adjoint(torch.where(mask, z_t, 0))) / 2, 0)


class Keep:
    """H keeps the entries of a mask."""

    def __init__(self, mask=True):
        self.mask = torch.as_tensor(mask)

    def A(self, z):
        return torch.where(self.mask, z, 0)

    A_adjoint = A_dagger = A
