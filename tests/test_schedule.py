"""The noise schedule against the published one."""

import pytest
import torch
from torch.testing import assert_close

from msm.schedule import VPSchedule


@pytest.fixture
def schedule():
    return VPSchedule()


def test_golden_schedule(golden, schedule):
    vectors, _ = golden("schedule")
    t = torch.arange(1000)
    assert_close(schedule.sigma(t), vectors["sigma"].float(), rtol=1e-5, atol=0)
    assert_close(schedule.alpha_bar(t), vectors["alphas_cumprod"].float(), rtol=1e-5, atol=0)
    assert_close(schedule.grid(200), vectors["timestep_map_ddim200"].float(), rtol=0, atol=0)
    alpha_bars = vectors["alphas_cumprod_ddim200"].float()
    assert_close(schedule.alpha_bar(schedule.grid(200)), alpha_bars, rtol=1e-5, atol=0)


def test_golden_times_of_noise_levels(golden, schedule):
    _, facts = golden("schedule")
    for sigma, entry in facts["time_of_noise_level"].items():
        assert schedule.time(float(sigma)).item() == pytest.approx(entry["t"], abs=1e-3)
    times = schedule.time(torch.tensor([0.05, 0.1, 0.2]))
    assert_close(times, torch.tensor([10.9451, 26.4056, 57.3816]), rtol=0, atol=1e-3)


def test_time_inverts_sigma(schedule):
    t = torch.linspace(0, 999, 4001).view(1, -1)
    assert_close(schedule.time(schedule.sigma(t)), t, rtol=0, atol=2e-2)
    sigma = torch.logspace(-1.9, 2.1, 500)
    assert_close(schedule.sigma(schedule.time(sigma)), sigma, rtol=1e-4, atol=0)


def test_out_of_range_is_clamped(schedule):
    assert schedule.time(0.0).item() == 0
    assert schedule.time(1e6).item() == 999
    assert schedule.sigma(torch.tensor(-1.0)) == schedule.sigmas[0]
    assert schedule.sigma(torch.tensor(2000.0)) == schedule.sigmas[-1]


def test_grid(schedule):
    assert schedule.grid(1).tolist() == [0]
    assert_close(schedule.grid(3), torch.tensor([0, 1000 / 3, 2000 / 3]))
    assert schedule.grid(1000).tolist() == list(range(1000))
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="steps"):
            schedule.grid(steps)
    with pytest.raises(ValueError, match='grid must be "time" or "log"'):
        schedule.grid(3, "rho")


def test_log_grid_divides_sigma_evenly(schedule):
    sigma = schedule.sigma(schedule.grid(9, "log")).double()
    assert_close(sigma[[0, -1]], schedule.sigmas[[0, -1]].double())
    assert_close(sigma[1:] / sigma[:-1], (sigma[-1] / sigma[0]).pow(1 / 8).expand(8), rtol=1e-3, atol=0)


@pytest.mark.parametrize("spacing", ["time", "log"])
def test_grid_from_a_noise_level(schedule, spacing):
    times = schedule.grid(5, spacing, 1.0)
    assert times[0] == 0 and schedule.sigma(times[-1]).item() == pytest.approx(1, rel=1e-4)
    even = times if spacing == "time" else schedule.sigma(times).log()
    assert_close(even.diff(), even.diff().mean().expand(4), rtol=1e-3, atol=0)
    assert schedule.sigma(schedule.grid(1, spacing, 1.0)).item() == pytest.approx(1, rel=1e-4)
    for start in (0.01, 158.0):
        with pytest.raises(ValueError, match="first noise level"):
            schedule.grid(5, spacing, start)


def test_buffer_is_not_saved(schedule):
    assert schedule.state_dict() == {}


def test_training_grids(schedule):
    assert_close(schedule.training_grid(200), schedule.grid(200))
    assert (schedule.sigma(schedule.grid(1000)) > 2).float().mean().item() == pytest.approx(0.6, abs=0.01)
    times = schedule.training_grid(200, "cosine")
    sigma = schedule.sigma(times)
    assert (times.diff() >= 0).all() and times.min() >= 0 and times.max() <= 999
    assert (sigma < 0.3).float().mean().item() == 0.5
    assert_close(sigma[150], torch.tensor(0.3 * 2.4407), rtol=1e-3, atol=0)  # 0.3 tan(π/2 · 0.7525)
    with pytest.raises(ValueError, match="training grid"):
        schedule.training_grid(200, "log")
    with pytest.raises(ValueError, match="steps"):
        schedule.training_grid(0, "cosine")
