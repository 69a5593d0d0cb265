"""Predictions of held-out entries: the formulas, and that samples of the posterior are called so."""

from dataclasses import replace

import pytest
import torch

from msm.evaluate import held_out
from msm.evaluate.bootstrap import Estimate, of_sums
from msm.evaluate.held_out import Judge, Prediction, in_words, overall, verdict
from msm.measurement import Measurement
from msm.sample.shares import Shares
from msm.transforms import MultiCoil

SIZE, K, SPREAD, NOISE = 64, 19, 0.3, 0.2
KINDS = ["photo", "scan"]


def normal(*shape, seed, kind):
    dtype = torch.float32 if kind == "photo" else torch.complex64
    noise = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return noise if kind == "photo" else noise * 2**0.5  # unit variance per real component


def case(kind, certainty=1.0, off=0.0, unit="points"):
    """A judge, and K samples around an unknown centre, the truth being one more, of half of the entries.

    certainty > 1: the samples lie closer to each other than to the truth.
    """
    coils = 3 if kind == "photo" else 1
    centre = normal(1, coils, SIZE, SIZE, seed=0, kind=kind)
    draws = centre + SPREAD * normal(K + 1, coils, SIZE, SIZE, seed=1, kind=kind)
    truth, samples = draws[:1], centre + (draws[1:] - centre) / certainty + off
    values = truth + NOISE * normal(1, coils, SIZE, SIZE, seed=2, kind=kind)
    maps = None if kind == "photo" else torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex64)
    measurement = Measurement(values, torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool), maps, NOISE)
    judged = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) < 0.5
    shares = Shares(measurement, judged, torch.zeros_like(judged), unit)
    to_image = measurement.transform.adjoint
    tv = to_image(truth + normal(1, coils, SIZE, SIZE, seed=4, kind=kind))
    return Judge(shares, tv), to_image(samples) if kind == "photo" else torch.cat([to_image(s[None]) for s in samples])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_the_posterior_are_as_sure_as_they_may_be(kind):
    judge, samples = case(kind)
    found = judge.mean_of(samples)
    assert found.dispersion.value == pytest.approx(1, abs=0.04)
    assert found.dispersion.low < 1.02 and found.dispersion.high > 0.98
    assert found.nominal == pytest.approx(0.9) and found.covered.value == pytest.approx(0.9, abs=0.015)
    parts = 3 if kind == "photo" else 2
    assert found.independent == pytest.approx(parts * judge.entries, rel=0.25)  # they are independent here
    assert sum(found.ranks) == parts * judge.entries and len(found.ranks) == K + 1


@pytest.mark.parametrize("kind", KINDS)
def test_samples_too_sure_are_told(kind):
    judge, samples = case(kind, certainty=3.0)
    found = judge.mean_of(samples)
    announced = SPREAD**2 / 9 * (1 + 1 / K) + NOISE**2
    actual = SPREAD**2 * (1 + 1 / 9 / K) + NOISE**2
    assert found.dispersion.value == pytest.approx(actual / announced, rel=0.06)
    assert found.covered.value < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_what_a_sum_over_the_judged_entries_says(kind):
    judge, samples = case(kind)
    transform, judged = judge.shares.measurement.transform, judge.shares.judged[0, 0]
    values = judge.shares.measurement.values[0, :, judged]
    missed = (transform.forward(samples.mean(0, keepdim=True))[0, :, judged] - values).abs().square().sum()
    found, parts = judge.mean_of(samples), 1 if kind == "photo" else 2
    assert found.error.value == pytest.approx(float(missed / values.abs().square().sum()), rel=1e-5)
    assert found.error.low < found.error.value < found.error.high
    one = [judge.image(sample[None]).error.value for sample in samples]
    assert judge.one_of(samples).error.value == pytest.approx(sum(one) / K, rel=1e-5)
    of_tv = parts * (1 + NOISE**2)  # TV's image is the truth with errors of variance 1
    assert found.against_tv.value == pytest.approx(float(missed) / values.numel() / of_tv, rel=0.05)
    assert judge.floor == pytest.approx(parts * NOISE**2 * values.numel() / float(values.abs().square().sum()))


def test_the_residual_is_that_of_what_was_seen():
    judge, samples = case("scan")
    seen = ~judge.shares.judged[0, 0]
    missed = torch.stack([MultiCoil(judge.shares.measurement.maps).forward(s[None])[0] for s in samples])
    missed = (missed - judge.shares.measurement.values)[..., seen].abs().square().mean()
    assert judge.residual(samples) == pytest.approx(float((missed / (2 * NOISE**2)).sqrt()), rel=1e-5)
    silent = replace(judge.shares, measurement=replace(judge.shares.measurement, noise_std=0.0))
    assert Judge(silent, samples[:1]).residual(samples) is None


def test_neighbours_in_lines_are_one_block():
    """Eight entries along a line are drawn again together: their errors go together, so the interval is honest."""
    judge, samples = case("scan")
    blocks = Judge(replace(judge.shares, unit="lines"), samples[:1]).blocks
    assert len(judge.blocks.unique()) == judge.entries and len(blocks.unique()) == (SIZE // 8) ** 2


def test_interval_of_a_ratio():
    """The interval of Σ a / Σ b holds the true ratio in about 95 of 100 repetitions."""
    held = 0
    for seed in range(100):
        a, b = torch.rand(2, 200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        e = of_sums(3 * a, b)
        held += e.low < 3 < e.high
    assert 88 <= held <= 100
    with pytest.raises(ValueError, match="ratio to nothing"):
        of_sums(torch.ones(3), torch.zeros(3))


def said(against_tv=1.0, dispersion=1.0, residual=1.0, maps=0.0, beaten=0.0, monkeypatch=None):
    judge, samples = case("scan")
    limits = {"against_tv": max(beaten, 1) / against_tv, "dispersion": 1 / dispersion, "residual": 1 / residual}
    monkeypatch.setattr(held_out, "LIMITS", limits)
    monkeypatch.setattr(Judge, "residual", lambda *_: 1.0)
    mean = Prediction(Estimate(0.1), Estimate(beaten or 0.99), Estimate(0.99), Estimate(0.88), 0.9, (1.0,))
    return verdict("a", judge, samples, mean, maps)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "trust"),
        ({"against_tv": 2}, "look closer"),
        ({"dispersion": 2}, "look closer"),
        ({"residual": 2}, "look closer"),
        ({"maps": 0.2}, "look closer"),
        ({"beaten": 1.1}, "look closer"),
        ({"residual": 2, "maps": 0.2}, "look closer"),
        ({"against_tv": 2, "dispersion": 2}, "this model does not know such images"),
        ({"against_tv": 2, "residual": 2}, "this model does not know such images"),
    ],
)
def test_the_verdict_counts_what_exceeds_its_threshold(monkeypatch, given, words):
    found = said(monkeypatch=monkeypatch, **given)
    assert found.words == words and len(found.reasons) == len(given) + 1
    assert found.reasons[-1] == f"the 90% interval held 88% of {found.entries} held-out points"
    assert found.words in in_words([found])[0]


def test_the_verdict_on_a_run_is_that_of_half_of_its_images(monkeypatch):
    good, bad = said(monkeypatch=monkeypatch), said(monkeypatch=monkeypatch, against_tv=2, dispersion=2)
    assert overall([good, good, bad]) == "trust" and overall([good, bad, bad]) == bad.words
    assert overall([good, bad]) == bad.words
    assert in_words([good, good, bad])[1] == "trust: 2 of 3; this model does not know such images: 1 of 3"
