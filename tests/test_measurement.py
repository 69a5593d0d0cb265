"""Measurements: what they take, what they forget, and how batches of them are cut."""

from dataclasses import fields

import pytest
import torch

from msm.measurement import Measurement, standard_normal
from msm.transforms import Identity, MultiCoil

LEFT = (torch.arange(4) < 2).expand(3, 1, 4, 4)


def test_unmeasured_entries_are_forgotten_whatever_they_held():
    values = torch.where(LEFT, torch.ones(3, 2, 4, 4), torch.nan)
    measurement = Measurement(values, LEFT)
    assert torch.equal(measurement.values, LEFT.float().expand(3, 2, 4, 4))
    fewer = measurement.restrict(torch.arange(4)[:, None] < 1)
    assert torch.equal(fewer.mask, LEFT & (torch.arange(4)[:, None] < 1)) and fewer.values.sum() == 3 * 2 * 2
    assert torch.equal(measurement.restrict(torch.ones_like(LEFT)).mask, LEFT)  # nothing comes back


def test_there_is_no_field_for_a_clean_image():
    assert {field.name for field in fields(Measurement)} == {"values", "mask", "maps", "noise_std"}


@pytest.mark.parametrize(
    ("values", "mask", "maps", "told"),
    [
        (torch.zeros(1, 4, 4), LEFT[:1], None, r"values must be \(B, C or coils, H, W\)"),
        (torch.zeros(3, 2, 4, 4), LEFT.float(), None, "mask must be bool"),
        (torch.zeros(3, 2, 4, 4), LEFT[:2], None, "mask must be bool"),
        (torch.zeros(3, 2, 4, 4), LEFT, torch.zeros(3, 5, 4, 4), "maps must be"),
        (torch.zeros(3, 2, 4, 4), LEFT, torch.zeros(2, 2, 4, 4), "maps must be"),
    ],
)
def test_parts_that_do_not_fit_are_refused(values, mask, maps, told):
    with pytest.raises(ValueError, match=told):
        Measurement(values, mask, maps)


def test_a_part_of_a_batch_keeps_its_maps_and_noise():
    values, maps = torch.randn(3, 2, 4, 4, dtype=torch.complex64), torch.randn(3, 2, 4, 4, dtype=torch.complex64)
    part = Measurement(values, LEFT, maps, torch.tensor([0.1, 0.2, 0.3]))[1:]
    assert len(part) == 2 and torch.equal(part.maps, maps[1:]) and part.noise_std.tolist() == pytest.approx([0.2, 0.3])
    shared = Measurement(values, LEFT, maps[:1], 0.1)[1:]
    assert torch.equal(shared.maps, maps[:1]) and shared.noise_std == 0.1


def test_the_transform_is_that_of_the_maps():
    assert isinstance(Measurement(torch.zeros(3, 1, 4, 4), LEFT).transform, Identity)
    maps = torch.ones(1, 2, 4, 4, dtype=torch.complex64)
    assert isinstance(Measurement(torch.zeros(3, 2, 4, 4), LEFT, maps).transform, MultiCoil)


def test_standard_normal_has_unit_variance_per_real_component():
    noise = standard_normal(torch.zeros(100, 100, dtype=torch.complex64), torch.Generator().manual_seed(0))
    assert noise.real.var().item() == pytest.approx(1, abs=0.06)
    assert noise.imag.var().item() == pytest.approx(1, abs=0.06)
