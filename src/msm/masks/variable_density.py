"""Variable-density masks of 2-D k-space, for scans with two phase-encoding axes (SPEC §7).

Each point k is kept with probability p(k), by comparing one number in [0, 1) for each point, the threshold field v,
with p: the mask is {k : frac(v(k + shift) + u) < p(k)}, with a random shift of the field round the edges and a
random u. As u is uniform, each point is kept with probability p(k) exactly, whatever the field is; what the field
decides is how the points lie to one another. White noise gives points that do not know of each other. Blue noise, in
which similar values keep apart, gives points that keep apart: Poisson-disc-like sampling at every density. And as u
moves round the circle, the masks of a step follow one another without overlap as long as they can.

Source: threshold field by insertion into the largest void (Ulichney, Proc. SPIE 1913, 1993); density of Poisson-disc
sampling whose spacing grows in proportion to the distance from the centre (Vasanawala et al., ISBI 2011).
"""

from functools import lru_cache
from math import ceil
from typing import Literal

import torch
from torch import Generator, Tensor

from .base import Masks, Size, height_width

VOID_WIDTH = 1.5  # standard deviation, in points, of what a placed point fills (Ulichney)
REACH = 10  # points; beyond, that is below 1e-9


class VariableDensityMasks(Masks):
    """Points of 2-D k-space, denser towards a fully sampled centre.

    Off the centre p(k) = 1/(1 + s r)², with r = 1 at the middle of the edges and s such that p is 1/R on average:
    the spacing between points grows in proportion to r. The centre is always kept, so the true acceleration,
    1 / `kept`, is below the nominal R.

    Args:
        size: height and width of k-space.
        acceleration: R ≥ 1, nominal: one point in R off the centre.
        center: side of the square in the middle that is always kept, in points.
        pattern: "poisson", points that keep apart, or "random", points that do not know of each other.
        corners: whether k-space beyond the ellipse r = 1 is measured.

    Raises:
        ValueError: if an argument is out of range.
    """

    kind = "variable_density"
    variates = 3  # two for the shift of the field, one for u

    def __init__(
        self,
        size: Size,
        acceleration: float = 8,
        center: int = 24,
        pattern: Literal["poisson", "random"] = "poisson",
        corners: bool = True,
    ):
        self.size = height_width(size)
        height, width = self.size
        if pattern not in ("poisson", "random"):
            raise ValueError(f'pattern must be "poisson" or "random", got {pattern!r}')
        if not 0 <= center <= min(self.size):
            raise ValueError(f"center must be between 0 and the {min(self.size)} points there are, got {center}")
        y, x = ((torch.arange(n) - n // 2).double() / (n / 2) for n in self.size)
        radius = (y[:, None].square() + x.square()).sqrt()
        top, left = (height - center + 1) // 2, (width - center + 1) // 2
        self.middle = torch.zeros(self.size, dtype=torch.bool)
        self.middle[top : top + center, left : left + center] = True
        measured = radius <= 1 if not corners else torch.ones_like(radius, dtype=torch.bool)
        self.probability = _density(radius, measured, ~self.middle, acceleration)
        self.probability[self.middle] = 1
        self.windows = ceil(1 / self.probability[self.probability > 0].min().item() - 1e-9)
        self.acceleration, self.center, self.pattern, self.corners = acceleration, center, pattern, corners
        self._field = _threshold_field(height, width, pattern)

    @property
    def kept(self) -> float:
        """Expected fraction of points kept, the centre included."""
        return self.probability.mean().item()

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates (B, draws, 3): shift down, shift across, u of the module's formula.

        Covering: the draws have one shift, and u moves on by 1/draws from each to the next: no two keep a point
        of which p(k) is at most 1/draws.
        """
        draws, u = u.shape[1], u.double()  # in float32 rounding may open a gap at a window's edge
        if covering:
            steps = torch.arange(draws, device=u.device) / draws
            u = torch.cat([u[:, :1, :2].expand(-1, draws, -1), ((u[:, :1, 2] + steps) % 1)[..., None]], -1)
        value = self._shifted(u[..., :2].flatten(0, 1)).unflatten(0, u.shape[:2])
        below = (value + u[..., 2, None, None]) % 1 < self.probability.to(u.device)
        return (below | self.middle.to(u.device))[:, :, None]

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: as many as the least dense point needs, each the next window of the same field.

        K is ⌈1 / min p⌉, 13 at R = 8 without corners: a chain takes 2K − 1 network calls.
        """
        probability, u, number = self.probability.to(u.device), u.double(), self.windows
        value = (self._shifted(u[:, :2]) + u[:, 2, None, None]) % 1
        start = torch.arange(number, device=u.device)[:, None, None] / number
        window = torch.where(probability > 0, probability.clamp(min=1 / number), 0)
        ahead = (value[:, None] - start) % 1
        last = (value * number).long()[:, None] == torch.arange(number, device=u.device)[:, None, None]
        held = (ahead < window) | (last & (probability > 0)) | self.middle.to(u.device)
        return held[:, :, None]

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-mask: the centre, and each other measured point with probability `keep`."""
        u = torch.rand(mask.shape, generator=generator, device=mask.device)
        return mask & ((u < keep[:, None, None, None]) | self.middle.to(mask.device))

    def _shifted(self, shift: Tensor) -> Tensor:
        """The threshold field (N, H, W) rolled by shifts (N, 2) in units of its sides."""
        rows, columns = (
            (torch.arange(n, device=shift.device) + (shift[:, axis, None] * n).long()) % n
            for axis, n in enumerate(self.size)
        )
        return self._field.to(shift.device)[rows[:, :, None], columns[:, None, :]]


def _density(radius: Tensor, measured: Tensor, outside: Tensor, acceleration: float) -> Tensor:
    """p(k) = 1/(1 + s r)² where measured, with s such that the mean over the points outside the centre is 1/R."""
    if not outside.any():
        return measured.double()

    def density(slope: float) -> Tensor:
        return measured / (1 + slope * radius).square()

    low, high = 0.0, 1e3
    least, most = (1 / density(slope)[outside].mean().item() for slope in (low, high))
    if not least <= acceleration * (1 + 1e-9) <= most:
        raise ValueError(f"acceleration must be at least {least:.3g} and at most {most:.3g} here, got {acceleration}")
    for _ in range(60):
        slope = (low + high) / 2
        low, high = (slope, high) if density(slope)[outside].mean() * acceleration > 1 else (low, slope)
    return density(high)


@lru_cache(maxsize=8)
def _threshold_field(height: int, width: int, pattern: str) -> Tensor:
    """A number in [0, 1) for each point (H, W), all equally likely: white noise, or blue ("poisson").

    Blue: points are numbered one after the other, each time the one that is farthest from those that are numbered.
    """
    count = height * width
    generator = Generator().manual_seed(0)
    if pattern == "random":
        order = torch.randperm(count, generator=generator)
        return (order.double() / count).reshape(height, width)
    import numpy as np

    reach = [np.arange(-min(REACH, (n - 1) // 2), min(REACH, (n - 1) // 2) + 1) for n in (height, width)]
    fill = np.exp(-(reach[0][:, None] ** 2 + reach[1] ** 2) / (2 * VOID_WIDTH**2))
    filled = torch.rand(height, width, generator=generator, dtype=torch.float64).numpy() * 1e-9  # ties at random
    rank = np.empty(count)
    for number in range(count):
        place = int(filled.argmin())
        rank[place] = number
        y, x = divmod(place, width)
        filled[np.ix_((y + reach[0]) % height, (x + reach[1]) % width)] += fill
        filled[y, x] = np.inf
    return torch.from_numpy(rank / count).reshape(height, width)
