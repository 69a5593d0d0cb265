"""The variance-preserving noise schedule (SPEC §2).

A noisy iterate is z_t = sqrt(alpha_bar_t) z + sqrt(1 − alpha_bar_t) n with n ~ N(0, I). Its noise level is
sigma_t = sqrt((1 − alpha_bar_t) / alpha_bar_t), so that z_t / sqrt(alpha_bar_t) = z + sigma_t n. Times run over
0 … 999; between two integers sigma is linear in t, which makes every noise level reachable.
"""

from math import pi
from typing import Literal

import torch
from torch import Tensor, nn

Grid = Literal["time", "log"]
TrainingGrid = Literal["time", "cosine"]


class VPSchedule(nn.Module):
    """Linear-β schedule over 1000 steps (Ho et al. 2020), with fractional times.

    Args:
        beta_start: β of the first step.
        beta_end: β of the last step.
        num_steps: number of steps of the full chain.
    """

    sigmas: Tensor

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000):
        super().__init__()
        betas = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
        alpha_bars = torch.cumprod(1 - betas, 0)
        sigmas = torch.sqrt((1 - alpha_bars) / alpha_bars)
        self.register_buffer("sigmas", sigmas.float(), persistent=False)
        self.settings = {"beta_start": beta_start, "beta_end": beta_end, "num_steps": num_steps}

    @property
    def device(self) -> torch.device:
        """Where times and noise levels live: with the denoiser that the schedule is part of."""
        return self.sigmas.device

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level sigma_t.

        Args:
            t: times on the 0…999 scale, any shape; values outside are clamped.

        Returns:
            sigma_t, same shape, float32.
        """
        last = len(self.sigmas) - 1
        t = torch.as_tensor(t, device=self.device).float().clamp(0, last)
        below = t.floor().long().clamp(max=last - 1)
        return torch.lerp(self.sigmas[below], self.sigmas[below + 1], t - below)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Signal power alpha_bar_t = 1 / (1 + sigma_t²) of the iterate at time t (any shape)."""
        return 1 / (1 + self.sigma(t) ** 2)

    def time(self, sigma: Tensor | float) -> Tensor:
        """Time at which the noise level is sigma: the inverse of `sigma`.

        Args:
            sigma: noise levels, any shape; clamped to the schedule's range, about 0.01 … 157.

        Returns:
            Fractional times on the 0…999 scale, same shape, float32.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=self.device)
        sigma = sigma.clamp(self.sigmas[0], self.sigmas[-1])
        above = torch.searchsorted(self.sigmas, sigma.contiguous()).clamp(min=1)
        low, high = self.sigmas[above - 1], self.sigmas[above]
        return (above - 1) + (sigma - low) / (high - low)

    def grid(self, steps: int, spacing: Grid = "time", start: float | None = None) -> Tensor:
        """Ascending times of the steps, from 0: grid(200) is 0, 5, …, 995.

        Args:
            steps: number of times, 1 … 1000.
            spacing: "time", even steps of t; or "log", even steps of log sigma_t, which spends fewer of them where
                noise hides everything and more where detail is made.
            start: the largest noise level, above the schedule's smallest (0.01); None: that of the whole schedule.

        Returns:
            Times, shape (steps,), float32; fractional where they have to be.

        Raises:
            ValueError: if steps, spacing or start is out of range.
        """
        total, device = len(self.sigmas), self.device
        lowest, highest = self.sigmas[[0, -1]].tolist()
        if not 1 <= steps <= total:
            raise ValueError(f"steps must be between 1 and {total}, got {steps}")
        if spacing not in ("time", "log"):
            raise ValueError(f'grid must be "time" or "log", got {spacing!r}')
        if start is not None and not lowest < start <= highest:
            raise ValueError(f"the first noise level must be above {lowest:.3g}, up to {highest:.4g}, got {start}")
        if spacing == "time" and start is None:
            return torch.arange(steps, device=device, dtype=torch.float32) * (total / steps)
        top, rise = highest if start is None else start, torch.linspace(1, 0, steps, device=device).flip(0)
        if spacing == "time":
            return rise * self.time(top)
        return self.time(lowest * (top / lowest) ** rise)

    def training_grid(self, steps: int, spacing: TrainingGrid = "time") -> Tensor:
        """Ascending times that training draws from, all alike.

        Args:
            steps: number of times, 1 … 1000.
            spacing: "time", as `grid`, published: three fifths of the times are above sigma = 2, where noise hides all
                but the coarsest shapes; or "cosine", the noise levels of a cosine schedule with half of them below
                0.3, about the standard deviation of our images: more of the training goes where detail is made.

        Returns:
            Times, shape (steps,), float32.

        Raises:
            ValueError: if steps or spacing is out of range.

        Source: Nichol, Dhariwal 2021 (cosine schedule); Hoogeboom, Heek, Salimans 2023 (its shift).
        """
        even = self.grid(steps)
        if spacing == "time":
            return even
        if spacing != "cosine":
            raise ValueError(f'training grid must be "time" or "cosine", got {spacing!r}')
        shares = even / len(self.sigmas) + 0.5 / steps
        return self.time(0.3 * torch.tan(pi / 2 * shares))
