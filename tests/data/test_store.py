"""The store: round trip, and one clear line for each kind of bad file."""

import h5py
import numpy as np
import pytest
import torch
from stores import MASKS, SIZE, edit, scan, write_scans

from msm.data.acquire import Source, acquire, fine_phase, simulate_scan
from msm.data.store import MeasurementStore, StoreWriter, TruthWriter
from msm.errors import DataError
from msm.masks import CartesianMasks


@pytest.fixture
def store(tmp_path):
    return write_scans(tmp_path / "store.h5", 4)


def test_round_trip(store):
    data = MeasurementStore(store)
    batch = data.batch([2, 0])
    expected = acquire(scan(2), MASKS, 0.1, seed=0)
    assert len(data) == 4 and data.provenance == {"from": "test"} and data.names([2]) == ["scan2"]
    assert torch.equal(batch.values[:1], expected.values)
    assert torch.equal(batch.mask[:1], expected.mask) and torch.equal(batch.maps[:1], expected.maps)


def test_an_item_is_acquired_once_for_ever():
    first, again = (acquire(scan(1), MASKS, 0.1, seed=0) for _ in range(2))
    other = acquire(scan(1), MASKS, 0.1, seed=1)
    assert torch.equal(first.values, again.values) and not torch.equal(first.values, other.values)


def test_simulated_noise_has_the_stated_level():
    source = Source("photo", torch.zeros(3, 128, 128))
    m = acquire(source, CartesianMasks(128, 1, 0), 0.1, seed=0)
    assert abs(m.values.std().item() - 0.1) < 0.001


def test_maps_have_unit_sum_of_squares():
    torch.testing.assert_close(scan(0).maps.abs().square().sum(0), torch.ones(SIZE, SIZE))


def test_truth_is_a_file_of_its_own(tmp_path, store):
    with TruthWriter(tmp_path / "truth.h5", {}) as writer:
        writer.add("a", torch.ones(1, SIZE, SIZE))
    with h5py.File(tmp_path / "truth.h5") as file:
        assert (file["images"][:] == 1).all() and file["images"].shape == (1, 1, SIZE, SIZE)
    with pytest.raises(DataError, match="expected a file of format"):
        MeasurementStore(tmp_path / "truth.h5")


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), StoreWriter(tmp_path / "store.h5", {}):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def poison(values):
    values[1] = np.nan
    return values


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("mask", np.zeros_like, "mask of zeros"),
        ("values", poison, "not finite"),
        ("maps", lambda maps: maps[:, :, :4], "maps has shape"),
        ("noise_std", lambda rho: rho[:2], "noise_std has shape"),
        ("values", lambda values: values[0], "has 3 axes"),
        ("values", abs, "complex values and maps go together"),
        ("mask", np.float32, "mask is float32, which is no type for it"),
        ("maps", abs, "maps is float32, which is no type for it"),
        ("noise_std", np.negative, "no noise level"),
        ("noise_std", lambda rho: rho * np.nan, "no noise level"),
    ],
)
def test_bad_content_is_one_clear_line(store, field, change, message):
    edit(store, field, change)
    with pytest.raises(DataError, match=message) as caught:
        MeasurementStore(store).batch(range(4))
    assert str(store) in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_missing_and_linked_files(store, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        MeasurementStore(tmp_path / "none.h5")
    with h5py.File(store, "r+") as file:
        del file["values"]
        file["values"] = h5py.ExternalLink("other.h5", "values")
    with pytest.raises(DataError, match="values is missing"):
        MeasurementStore(store)
    store.write_bytes(store.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or cut off"):
        MeasurementStore(store)


def test_fine_phase_has_the_variance_and_the_spectrum_it_states():
    generator = torch.Generator().manual_seed(0)
    fields = torch.stack([fine_phase(24, 32, generator) for _ in range(4000)])
    assert fields.square().mean() == pytest.approx(1, rel=0.03)
    power = torch.fft.fft2(fields).abs().square().mean(0)
    assert power[0, 1] / power[0, 4] == pytest.approx((17 / 2) ** 1.5, rel=0.1)
    assert power[3, 0] / power[0, 6] == pytest.approx((37 / 10) ** 1.5, rel=0.1)


def test_phase_detail_changes_the_phase_alone():
    magnitude = torch.rand(16, 16, generator=torch.Generator().manual_seed(1))
    smooth, fine = (simulate_scan("scan", magnitude, 3, seed=0, phase_detail=detail) for detail in (0.0, 0.4))
    torch.testing.assert_close(fine.image.abs(), smooth.image.abs())
    assert torch.equal(fine.maps, smooth.maps)
    assert torch.angle(fine.image * smooth.image.conj()).std() > 0.1
