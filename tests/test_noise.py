"""Noise levels and coil covariances from measurements: closed forms, calibrated errors, blind to what is unmeasured."""

import json
import math

import pytest
import torch
from helpers import random_tensor
from torch.testing import assert_close

from msm.config.load import ConfigError, load_config
from msm.data.noise_level import AssumedNoise, noise_record, with_noise
from msm.data.store import MeasurementStore, StoreWriter
from msm.errors import DataError
from msm.masks import BoxMasks, CartesianMasks
from msm.measurement import Measurement, standard_normal
from msm.noise import edge_samples, estimate_noise, noise_covariance, pool_noise, whitening
from msm.transforms import MultiCoil

SIZE, RHO = 32, 0.1


def photo(size=SIZE):
    """A smooth coloured image (1, 3, H, W)."""
    x = torch.linspace(-1, 1, size)
    return torch.stack([0.5 * x[:, None] * x, 0.3 * x[:, None] + 0 * x, (0.4 * x).expand(size, size)])[None]


def photos(count, seed=0, size=SIZE):
    """Noisy smooth photos, every one with a mask of its own."""
    generator, image = torch.Generator().manual_seed(seed), photo(size).expand(count, -1, -1, -1)
    mask = BoxMasks(size, grid=2).sample(count, generator)
    return Measurement(image + RHO * standard_normal(image, generator), mask)


def coils(count=4, size=SIZE):
    """Smooth maps of unit sum of squares (1, coils, H, W)."""
    x, c = torch.linspace(-1, 1, size), torch.arange(count)[:, None, None]
    near = torch.exp(-((x[:, None] - torch.cos(1.6 * c)) ** 2) - (x - torch.sin(1.6 * c)) ** 2)
    maps = torch.polar(near, c * x[:, None] + x * c**2)[None]
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def scans(count, maps, seed=0, rho=RHO, masks=None):
    """Noisy k-space of random images a hundred times as strong as the noise."""
    generator = torch.Generator().manual_seed(seed)
    size = maps.shape[-2:]
    image = 100 * RHO * standard_normal(torch.zeros(count, 1, *size, dtype=torch.complex64), generator)
    z = MultiCoil(maps).forward(image)
    mask = (masks or CartesianMasks(size, 2, 6)).sample(count, generator)
    return Measurement(z + rho * standard_normal(z, generator), mask, maps)


def edge_scans(count, maps, mask):
    """White noise in k-space, all of it measured in a pattern that is not of columns."""
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(count, *maps.shape[1:], dtype=torch.complex64)
    return Measurement(RHO * standard_normal(z, generator), mask.expand(count, 1, -1, -1), maps)


def checkerboard(size=SIZE):
    index = torch.arange(size)
    return ((index[:, None] + index) % 2 == 0)[None, None]


CASES = {
    "photos": lambda: photos(200),
    "coils": lambda: scans(100, coils()),
    "edge": lambda: edge_scans(200, coils(), checkerboard()),
    "one coil": lambda: edge_scans(200, torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex64), checkerboard() | True),
}


@pytest.mark.parametrize("case", CASES)
def test_white_noise_is_found_within_a_calibrated_standard_error(case):
    rho, error = estimate_noise(CASES[case]())
    z = (rho - RHO) / error
    # The root of a skewed variance: z's own mean is about minus the relative error, 0.1 at most here.
    assert abs(z.mean().item()) < 0.1 + 3 / math.sqrt(len(z))
    assert 0.85 < z.std().item() < 1.15
    middle, error_of_middle = pool_noise(rho, error)
    assert abs(middle / RHO - 1) < 0.02 and abs(middle - RHO) < 4 * error_of_middle


@pytest.mark.parametrize("noise_std", [1e-3, 1e-4])
def test_little_noise_under_a_strong_signal(noise_std):
    rho, error = estimate_noise(scans(5, coils(), rho=noise_std))
    assert ((rho - noise_std).abs() < 4 * error).all()


def test_without_noise_nothing_is_left_outside_the_coils():
    rho, _ = estimate_noise(scans(2, coils(), rho=0.0))
    assert rho.max().item() < 1e-4 * 100 * RHO


def test_errors_of_smooth_maps_at_low_frequencies_do_not_count():
    x = torch.linspace(0, 1, 64)
    c = torch.arange(6)[:, None, None]
    waves = torch.polar(1 + 0.5 * torch.cos(3 * x[:, None] + c * x), c * x[:, None] * x)
    smooth = torch.exp(-20 * ((x[:, None] - 0.5) ** 2 + (x - 0.5) ** 2)).to(torch.complex64)
    generator = torch.Generator().manual_seed(0)
    z = MultiCoil(waves[None] / 3).forward(smooth[None, None])
    mask = CartesianMasks(64, 3, 6).sample(1, generator)
    wrong = waves * (1 + 0.1 * torch.cos(2 * x + 3 * c))  # with all of k_y, 0.0121 would be found
    measurement = Measurement(z + 0.01 * standard_normal(z, generator), mask, wrong[None] / 3)
    rho, error = estimate_noise(measurement)
    assert abs(rho.item() - 0.01) < 3 * error.item()


def test_only_measured_entries_are_used():
    for measurement in (photos(3), scans(3, coils()), edge_scans(3, coils(), checkerboard())):
        poisoned = torch.where(measurement.mask, measurement.values, torch.nan)
        again = estimate_noise(Measurement(poisoned, measurement.mask, measurement.maps))
        assert all(torch.equal(a, b) for a, b in zip(estimate_noise(measurement), again))


def test_an_item_does_not_depend_on_its_batch():
    batch = scans(3, coils())
    rho, error = estimate_noise(batch)
    assert torch.equal(torch.stack([rho[1:2], error[1:2]]), torch.stack(estimate_noise(batch[1:2])))


def test_estimates_scale_with_the_measurement():
    for m in (photos(2), scans(2, coils()), edge_scans(2, coils(), checkerboard())):
        first, scaled = estimate_noise(m), estimate_noise(Measurement(4 * m.values, m.mask, m.maps))
        assert_close(torch.stack(scaled), 4 * torch.stack(first))


def test_detail_in_brightness_does_not_count_but_grey_photos_feel_it():
    generator = torch.Generator().manual_seed(0)
    texture = 0.5 * torch.randn(1, 1, 64, 64, generator=generator)
    noise = RHO * torch.randn(1, 3, 64, 64, generator=generator)
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    rho, error = estimate_noise(Measurement(texture + noise, mask))
    assert abs(rho - RHO) < 3 * error
    grey, _ = estimate_noise(Measurement((texture + noise).mean(1, keepdim=True), mask))
    assert grey.item() == pytest.approx(math.hypot(0.5, RHO / math.sqrt(3)), rel=0.1)


@pytest.mark.parametrize("where", ["no patch", "no edge"])
def test_too_little_to_estimate_from(where):
    mask = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    mask[..., :7, :9] = True
    with pytest.raises(ValueError, match=r"too (little|few)"):
        if where == "no patch":
            estimate_noise(Measurement(torch.zeros(1, 3, SIZE, SIZE), mask))
        else:
            estimate_noise(Measurement(coils(), mask, coils()))


# Coils with correlated noise


def mixed_noise(count, matrix, seed=0):
    return matrix @ random_tensor((len(matrix), count), torch.complex128, seed) * 2**0.5


def test_whitened_noise_has_the_identity_for_covariance():
    matrix = random_tensor((4, 4), torch.complex128, 5)
    covariance = 2 * matrix @ matrix.mH
    samples = mixed_noise(100_000, matrix)
    assert_close(noise_covariance(samples), covariance, atol=0.02 * covariance.abs().max().item(), rtol=0)
    w = whitening(covariance)
    eye = torch.eye(4, dtype=torch.complex128)
    assert_close(w @ covariance @ w.mH, 2 * eye)
    assert_close(noise_covariance(w @ samples), 2 * eye, atol=0.03, rtol=0)
    assert torch.view_as_real(w @ samples).std((1, 2)).sub(1).abs().max().item() < 0.01


def test_whitening_white_noise_only_scales():
    assert_close(whitening(2 * RHO**2 * torch.eye(3, dtype=torch.complex64)), torch.eye(3) / RHO + 0j)


def test_a_whitened_scan_has_noise_of_one():
    matrix, maps = random_tensor((4, 4), torch.complex64, 5), coils()
    noise = mixed_noise(SIZE**2, matrix.to(torch.complex128)).to(torch.complex64).view(1, 4, SIZE, SIZE)
    mask = CartesianMasks(SIZE, 2, 6).sample(1, torch.Generator().manual_seed(0))
    z = MultiCoil(maps).forward(random_tensor((1, 1, SIZE, SIZE), torch.complex64, 1))
    mixed = (torch.einsum("dc,bchw->bdhw", whitening(2 * matrix @ matrix.mH), field) for field in (z + noise, maps))
    values, maps = mixed
    rho, error = estimate_noise(Measurement(values, mask, maps / maps.abs().square().sum(1, keepdim=True).sqrt()))
    assert abs(rho - 1) < 4 * error


def test_edge_samples_are_the_outermost():
    values = torch.arange(64.0).view(1, 8, 8) + 0j
    assert edge_samples(values, torch.ones(8, 8, dtype=torch.bool), share=1 / 64).real.tolist() == [[0.0]]
    row = torch.zeros(8, 8, dtype=torch.bool)
    row[4, 2:] = True
    assert sorted(edge_samples(values, row, share=0.4).real[0].tolist()) == [34.0, 38.0, 39.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_covariance(torch.ones(4, 100)), "must be complex and finite"),
        (
            lambda: noise_covariance(torch.full((4, 100), torch.nan, dtype=torch.complex64)),
            "must be complex and finite",
        ),
        (lambda: noise_covariance(torch.ones(4, 7, dtype=torch.complex64)), "7 noise samples are too few for 4 coils"),
        (lambda: whitening(torch.diag(torch.tensor([1.0, 0])) + 0j), "not positive definite"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# In training


def write_store(path, count=6, size=SIZE):
    data = photos(count, size=size)
    with StoreWriter(path, {}) as writer:
        for i in range(count):
            writer.add(f"item{i}", data.values[i], data.mask[i], None, 0.0)
    return MeasurementStore(path)


def test_estimates_are_made_once_and_recorded(tmp_path):
    store, record = write_store(tmp_path / "store.h5"), tmp_path / "run" / "noise.jsonl"
    expected, errors = estimate_noise(store.batch(range(6)))
    data = with_noise("auto", store, store, record)
    batch = data.batch([4, 1], [0, 0])
    assert torch.equal(batch.noise_std, expected[[4, 1]]) and data.largest_noise_std == expected.max().item()
    assert torch.equal(batch.values, store.batch([4, 1]).values) and len(data) == 6
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["name"] for line in lines] == store.names(range(6)) and len(list(record.parent.iterdir())) == 2
    assert_close(torch.tensor([line["standard_error"] for line in lines]), errors)
    lines[0]["noise_std"] = 0.5
    (record.parent / "SHA256SUMS").unlink()
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert noise_record(store, record)[0][0] == 0.5  # read, not made again


def test_pooled_and_assumed_levels(tmp_path):
    store, record = write_store(tmp_path / "store.h5"), tmp_path / "noise.jsonl"
    assert with_noise("stored", store, store, record) is store
    assumed = with_noise(0.3, store, store, record)
    assert isinstance(assumed, AssumedNoise) and not record.exists()
    assert assumed.largest_noise_std == pytest.approx(0.3) and assumed.batch([0], [0]).noise_std == pytest.approx(0.3)
    pooled = with_noise("pooled", store, store, record).batch(range(6), [0] * 6).noise_std
    assert_close(pooled, torch.full((6,), pool_noise(*noise_record(store, record))[0]))


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    store, record = write_store(tmp_path / "store.h5"), tmp_path / "noise.jsonl"
    noise_record(write_store(tmp_path / "other.h5", count=5), record)
    with pytest.raises(DataError, match="noise of other items"):
        noise_record(store, record)
    with pytest.raises(DataError, match="is not as it was written"):
        record.write_text('{"name": "item0"}\n')
        noise_record(store, record)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match="not the record"):
        noise_record(store, record)


def test_an_item_without_an_estimate_is_named(tmp_path):
    with pytest.raises(DataError, match=r"store.h5: item \d \(item\d\): no 8 × 8 patch.*set train.noise_std"):
        noise_record(write_store(tmp_path / "store.h5", size=12), tmp_path / "noise.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


CONFIG = """
setting: {save_dir: run}
data: {kind: images, image_size: 16, mask: {kind: box}}
network: {image_size: 16, in_channels: 3, channel_mult: [1], attention_resolutions: [], num_head_channels: 32}
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.noise_std=-0.1"], "train.noise_std: found -0.1"),
        (["train.noise_std=automatic"], "train.noise_std: found 'automatic'"),
        (["train.noise_std=true"], "should not be true or false"),
        (["train.noise_std=auto", "train.remask=true"], "train.noise_std: found 'auto'; train.remask draws noise"),
    ],
)
def test_config(tmp_path, overrides, message):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    assert load_config(path).train.noise_std == "stored"
    assert load_config(path, ["train.noise_std=pooled"]).train.noise_std == "pooled"
    whole = load_config(path, ["train.noise_std=0"]).train.noise_std
    assert isinstance(whole, float) and whole == 0
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)
