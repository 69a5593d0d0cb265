"""`msm evaluate` and `msm report` of a run on raw scans: what is held out stays hidden, stop and go on, the page."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from disc_scans import COILS, H, disc, undersampled, write_config
from raw_files import noise
from runs import msm

from msm.errors import DataError
from msm.evaluate.classical import MRI
from msm.evaluate.held_out import Judge
from msm.evaluate.records import read_evaluation, read_records
from msm.evaluate.without_truth import MOST, classical
from msm.raw.coil_maps import espirit_maps
from msm.raw.hold_out import hold_out
from msm.raw.prepare import prepare
from msm.raw.readers import import_scans
from msm.raw.scan import padded_size
from msm.runs import held_out as runs_held_out
from msm.runs.held_out import spaced

WIDTH = 48


def write_scan(path, count=1, coils=COILS):
    lines = [
        undersampled(disc(f"s{i}", H, WIDTH, coils)[0] + 0.003 * noise((coils, H, WIDTH), i)) for i in range(count)
    ]
    np.save(path, torch.stack(lines).numpy())
    return path


def prepared(path):
    (scan,) = import_scans([path])
    return prepare(scan, padded_size(scan, 2))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run of two slices and its evaluation."""
    pytest.importorskip("nibabel")
    root = tmp_path_factory.mktemp("held_out")
    assert msm("sample", write_config(root, write_scan(root / "head.npy", 2))) == 0
    assert msm("evaluate", root / "out") == 0
    return root / "out"


def test_records_of_a_raw_run(evaluated):
    records, facts = read_records(evaluated), read_evaluation(evaluated)
    methods = ["zero-filled", "CG-SENSE", "TV", "L1-wavelet", "MSM, one sample", "MSM, mean of 8"]
    assert [(r.image, r.method) for r in records] == [(f"head:{n}", method) for n in (0, 1) for method in methods]
    assert facts.kind == "held-out" and [v.image for v in facts.verdicts] == ["head:0", "head:1"]
    assert {r.network_calls for r in records} == {0, 2, 16} and not (evaluated / "parts").exists()
    assert all(r.setting for r in records if r.kind == "classical")
    shares = hold_out(prepared_slice(evaluated, 1))
    tv, setting = classical(shares, MRI["TV"])
    (found,) = (r for r in records if (r.image, r.method) == ("head:1", "TV"))
    assert found.setting == setting and found.prediction.error == Judge(shares, tv).image(tv).error
    assert found.prediction.against_tv.value == 1
    with np.load(evaluated / "gallery.npz") as gallery:
        assert {*gallery} == {"names", *facts.layers} and gallery["TV"].shape == (2, 1, H, WIDTH)


def prepared_slice(run, number):
    scans = list(import_scans([run.parent / "head.npy"]))
    return prepare(scans[number], padded_size(scans[number], 2))


def test_the_page_of_a_raw_run(evaluated, tmp_path):
    assert msm("report", evaluated, "-o", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    facts = read_evaluation(evaluated)
    assert facts.verdicts[0].words in text and "Prediction of held-out measurements" in text
    assert "Image by image" in text and "interval held" in text and "Maps&#39; residual" in text
    assert all(title in text for title in facts.layers)


def test_what_is_held_out_reaches_no_method(tmp_path):
    """Other values there change no image and no coil map."""
    whole = prepared(write_scan(tmp_path / "a.npy"))
    judged = hold_out(whole).judged[0]
    scan = whole.scan
    other = replace(whole, scan=replace(scan, k_space=torch.where(judged, scan.k_space + 7, scan.k_space)))
    a, b = hold_out(whole), hold_out(other)
    assert judged.any() and torch.equal(a.judged, b.judged)
    assert torch.equal(a.seen.values, b.seen.values) and torch.equal(a.seen.maps, b.seen.maps)
    assert not torch.equal(a.measurement.values, b.measurement.values)


def test_maps_of_a_full_scan_are_estimated_without_what_is_held_out(tmp_path):
    """Everything measured: the calibration region is everything, lines are held out of it beyond 24 in the middle."""
    np.save(tmp_path / "a.npy", (disc("a", H, WIDTH)[0] + 0.003 * noise((COILS, H, WIDTH), 1)).numpy())
    whole = prepared(tmp_path / "a.npy")
    shares = hold_out(whole)
    assert shares.unit == "lines" and int(shares.judged[0, 0].any(0).sum()) == 3
    seen = shares.seen
    scan = replace(whole.scan, k_space=seen.values[0], mask=seen.mask[0])
    assert torch.equal(seen.maps[0], espirit_maps(scan)) and not torch.equal(seen.maps[0], whole.maps)


def test_one_coil_needs_no_calibration_region(tmp_path):
    """Every other column, and nothing whole in the middle: one coil has no maps to estimate."""
    k_space = disc("a", H, WIDTH, 2)[0][:1].clone()
    k_space[..., ::2] = 0
    np.save(tmp_path / "a.npy", k_space.numpy())
    whole = prepared(tmp_path / "a.npy")
    assert int(hold_out(whole).judged[0, 0].any(0).sum()) >= 3
    with pytest.raises(DataError, match="fully sampled on 0 points"):
        two = replace(whole.scan, k_space=whole.scan.k_space.expand(2, -1, -1))
        hold_out(replace(whole, scan=two, maps=whole.maps.expand(2, -1, -1)))


def test_a_stopped_evaluation_goes_on_to_the_same_bits(evaluated, monkeypatch, capsys):
    """Stopped before the second slice: the samples of the first are not drawn again. They are not those of the run."""
    files = {name: (evaluated / name).read_bytes() for name in ("records.jsonl", "evaluation.json")}
    drawn, seeds_of, samples_of = [], [], runs_held_out.samples_of

    def stopping(denoiser, seen, *, seeds, keep, **options):
        if not go and drawn:
            raise DataError("stopped")
        seeds_of.append(seeds)

        def counted(draw, reused):
            def count(numbers):
                drawn.append((seeds.start, numbers))
                return draw(numbers)

            return keep(count, reused)

        return samples_of(denoiser, seen, seeds=seeds, keep=counted, **options)

    monkeypatch.setattr(runs_held_out, "samples_of", stopping)
    go = False
    assert msm("evaluate", evaluated) == 2 and (evaluated / "parts").exists()
    first, go = list(drawn), True
    capsys.readouterr()
    assert msm("evaluate", evaluated) == 0
    assert len(drawn) == 2 * len(first) and not {*first} & {*drawn[len(first) :]}
    assert {name: (evaluated / name).read_bytes() for name in files} == files and not (evaluated / "parts").exists()
    assert seeds_of[-2:] == [range(6, 14), range(14, 22)]  # two slices of three samples had the seeds 0 … 5
    told, verdict = capsys.readouterr().out, json.loads(files["evaluation.json"])["verdicts"][0]
    assert verdict["words"] in told and "interval held" in told and "msm report" in told


def test_slices_that_are_judged_are_evenly_spaced():
    assert spaced(3) == [0, 1, 2] and spaced(MOST) == list(range(MOST))
    many = spaced(200)
    assert len(many) == MOST and {b - a for a, b in pairwise(many)} <= {16, 17} and many[0] == 8


def test_a_run_that_is_not_finished_is_one_clear_line(evaluated, capsys):
    (evaluated / "head.h5").rename(evaluated / "away.h5")
    assert msm("evaluate", evaluated) == 2
    (evaluated / "away.h5").rename(evaluated / "head.h5")
    error = capsys.readouterr().err
    assert "head.h5 is missing; run the same `msm sample` command again" in error and error.count("\n") == 1


def test_a_store_is_not_for_raw_runs(evaluated, capsys):
    assert msm("evaluate", evaluated, "--store", "a.h5") == 2
    assert "--store: is for generated images" in capsys.readouterr().err
