"""`msm evaluate`: the records of runs against direct calls, and its errors."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from runs import msm, unlist

from msm.data.acquire import Source
from msm.data.images import photos, slices
from msm.data.store import MeasurementStore
from msm.evaluate import perceptual
from msm.evaluate.calibration import foreground, rank_counts, residual_ratio, spread_and_error
from msm.evaluate.classical import MRI, biharmonic, cg_sense, choose, fitting, total_variation
from msm.evaluate.judge import _distances, network_calls
from msm.evaluate.memorisation import nearest
from msm.evaluate.metrics import image_metrics
from msm.evaluate.perceptual import wavelet_distance, wavelet_features
from msm.evaluate.records import read_evaluation, read_records, score, summary, write_scores
from msm.operators import Problem, colorization, gaussian_blur, random_inpainting, super_resolution
from msm.output.run_folder import run_config
from msm.sample.observe import observe
from msm.system.manifest import seal
from msm.system.places import RESOLVED


def of_method(folder, method):
    return [record for record in read_records(folder) if record.method == method]


def check_scores(records, x_hat, truth):
    for convention in ("plain", "published"):
        expected = image_metrics(x_hat, truth, convention=convention)
        for name, values in expected.items():
            found = [getattr(getattr(record, convention), name) for record in records]
            assert found == pytest.approx(values, rel=1e-5), (convention, name)


def observed(folder, items):
    config = run_config(folder)
    return observe(items, config.inverse_problem, config.data, seed=config.sample.seed)


def test_records_of_mri_are_what_direct_calls_say(runs):
    folder, items = runs / "mri", list(slices(runs / "brains", "test", 0, 128, 8, 0))
    samples = torch.from_numpy(np.load(folder / "samples.npy"))
    truth, seen = torch.stack([item.image for item in items[:2]]), observed(folder, items[:2])
    one, mean = of_method(folder, "MSM, one sample"), of_method(folder, "MSM, mean of 3")
    check_scores(of_method(folder, "zero-filled"), seen.input, truth)
    check_scores(one, samples[:, 0], truth)
    check_scores(mean, samples.mean(1), truth)
    assert {r.network_calls for r in one} == {4} and {r.network_calls for r in mean} == {12}
    given = (seen.y, seen.operator, seen.transform, 0.01, seen.operator.mask)
    assert [r.residual for r in one] == pytest.approx(residual_ratio(samples[:, 0], *given))
    where = foreground(seen.input)
    assert [list(r.ranks) for r in mean] == rank_counts(samples, truth, where).tolist()
    assert [(r.announced_error, r.actual_error) for r in mean] == spread_and_error(samples, truth, where)
    assert all(record.ranks is None for record in one)


def test_small_numbers_survive_in_the_table_of_scores(tmp_path):
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    records = score("mean", "msm", (1 + 3e-5**0.5) * x, x, ["a"])
    write_scores(tmp_path / "metrics.csv", records)
    plain, _ = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert float(plain["nmse"]) == pytest.approx(3e-5, rel=1e-4)
    assert float(plain["psnr"]) == pytest.approx(records[0].plain.psnr, rel=1e-5)
    assert summary(records)[0]["NMSE ↓"] == "* 0.0000300"


def test_the_table_of_a_run_has_the_scores_of_its_records(runs):
    with (runs / "mri" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["method"], row["convention"]) == ("msm", "plain")]
    for row, record in zip(rows, of_method(runs / "mri", "MSM, mean of 3"), strict=True):
        assert {name: float(row[name]) for name in ("psnr", "ssim", "nmse")} == pytest.approx(
            record.plain.model_dump(), rel=1e-5
        )


def test_the_gallery_names_the_kind_of_its_arrays(runs):
    kinds = read_evaluation(runs / "mri").layers
    with np.load(runs / "mri" / "gallery.npz") as gallery:
        assert {*gallery} == {"names", *kinds}
    assert kinds["zero-filled"] == "input" and kinds["truth"] == "truth" and kinds["TV"] == "classical"
    assert {r.method: r.kind for r in read_records(runs / "mri")}.items() <= kinds.items()
    assert read_evaluation(runs / "new").layers == {
        "generated": "generated",
        "nearest training measurement": "neighbour",
    }


def test_classical_methods_are_tuned_on_other_images(runs):
    folder, items = runs / "mri", list(slices(runs / "brains", "test", 0, 128, 8, 0))
    truth, seen, apart = (torch.stack([i.image for i in items[:2]]), observed(folder, items[:2]), items[2:])
    given = (observed(folder, apart), torch.stack([item.image for item in apart]))
    settings = {name: choose(MRI[name], *given) for name in ("CG-SENSE", "TV")}
    given = (seen.y, seen.operator.mask, seen.transform)
    weight, iterations = settings["CG-SENSE"]
    check_scores(of_method(folder, "CG-SENSE"), cg_sense(*given, regularisation=weight, iterations=iterations), truth)
    (weight,) = settings["TV"]
    check_scores(of_method(folder, "TV"), total_variation(*given, regularisation=weight, iterations=200), truth)
    words = read_evaluation(folder).settings
    assert words["TV"] == f"λ = {weight:g} (best of 5 on 1 other images)"
    assert len(read_records(folder)) == 2 * 6


def test_records_of_a_hole_count_the_hole_only(runs):
    folder, items = runs / "hole", list(photos(runs / "photos", "test", 35, 64, 3))[:2]
    samples = torch.from_numpy(np.load(folder / "samples.npy"))
    truth, seen = torch.stack([item.image for item in items]), observed(folder, items)
    mask = seen.operator.mask.expand(2, -1, -1, -1)
    check_scores(of_method(folder, "biharmonic"), biharmonic(seen.y, mask), truth)
    mean = of_method(folder, "MSM, mean of 3")
    assert [sum(r.ranks) for r in mean] == [3 * 32 * 32] * 2
    assert [list(r.ranks) for r in mean] == rank_counts(samples, truth, ~mask).tolist()
    given = (seen.y, seen.operator, seen.transform, 0.01)
    one = [r.residual for r in of_method(folder, "MSM, one sample")]
    assert one == pytest.approx(residual_ratio(samples[:, 0], *given, seen.operator.mask))
    assert one != pytest.approx(residual_ratio(samples[:, 0], *given), rel=0.05)


def test_a_repeated_training_image_is_found_among_generated_ones(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "new", tmp_path / "new")
    items = list(photos(runs / "photos", "test", 35, 64, 3))
    images = np.load(folder / "images.npy")
    images[1] = items[3].image
    np.save(folder / "images.npy", images)
    unlist(folder)
    seal(folder)
    assert msm("evaluate", folder, "--store", runs / "photos.h5") == 0
    near = [record.nearest for record in of_method(folder, "MSM")]
    direct = nearest(torch.from_numpy(images), MeasurementStore(runs / "photos.h5"))
    assert [n.name for n in near] == [n.name for n in direct]
    assert [n.distance for n in near] == pytest.approx([n.distance for n in direct], abs=1e-6)
    assert [n.second for n in near] == pytest.approx([n.second for n in direct])
    assert near[1].name == items[3].name and near[1].distance < 0.05 < min(n.distance for n in near[:1] + near[2:])
    held_out = of_method(folder, "held-out")
    assert [r.image for r in held_out] == [r.nearest.name for r in held_out] == [item.name for item in items]
    with np.load(folder / "gallery.npz") as gallery:
        pictures = gallery["nearest training measurement"]
    store = MeasurementStore(runs / "photos.h5")
    assert np.array_equal(pictures[1], store.batch([direct[1].index]).values[0].numpy())


def test_the_distance_of_generated_images_is_taken_at_equal_numbers(runs):
    images = torch.from_numpy(np.load(runs / "new" / "images.npy"))
    real = torch.stack([item.image for item in photos(runs / "photos", "test", 35, 64, 3)])
    features, (ours, theirs) = wavelet_features, read_evaluation(runs / "new").distances
    assert (ours.kind, theirs.kind, ours.estimate.count, ours.reference) == ("generated", "held-out", 8, 8)
    assert ours.estimate.value == pytest.approx(wavelet_distance(features(images), features(real[8:])))
    assert theirs.estimate.value == pytest.approx(wavelet_distance(features(real[:8]), features(real[8:])))


def test_images_that_were_trained_on_do_not_count_as_held_out(runs, tmp_path):
    folder = shutil.copytree(runs / "new", tmp_path / "new")
    photos = f"setting.dataset_dir={runs / 'photos'}"
    assert msm("acquire", folder / "config.yaml", "-o", tmp_path / "same.h5", photos) == 0
    assert msm("evaluate", folder, "--store", tmp_path / "same.h5") == 0
    assert not of_method(folder, "held-out") and not read_evaluation(folder).distances
    assert read_evaluation(folder).notes[0].startswith("16 of 16 images are not held out, the model was trained on")


def test_features_of_the_held_out_images_are_computed_once(monkeypatch):
    sizes = []

    def features(images):
        sizes.append(len(images))
        return wavelet_features(images)[:, :3]

    monkeypatch.setattr(perceptual, "inception_features", features)
    real = [Source(f"{i}", torch.rand(3, 8, 8)) for i in range(20)]
    found, reasons = _distances(torch.rand(9, 3, 8, 8), real)
    assert [(d.name, d.estimate.count, d.reference) for d in found] == [
        (n, 9, 11) for n in ["FD-wavelet"] * 2 + ["FID"] * 2
    ]
    assert not reasons and sizes == [11, 9, 9]


def test_the_same_command_again_gives_the_same_records(runs, tmp_path):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    before = (folder / "records.jsonl").read_bytes()
    assert msm("evaluate", folder) == 0
    assert (folder / "records.jsonl").read_bytes() == before
    assert not list(folder.rglob("*tmp*"))
    assert all(json.loads(line) for line in before.splitlines())


def test_new_samples_make_an_old_evaluation_void(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    assert msm("sample", folder / "config.yaml", f"setting.save_dir={folder}", "sample.seed=1", "--force") == 0
    assert not (folder / "records.jsonl").exists() and not (folder / "gallery.npz").exists()
    assert "msm sample" in json.loads((folder / "versions.json").read_text())["command"]
    assert msm("report", folder) == 2
    assert "run first: msm evaluate" in capsys.readouterr().err


def test_without_other_images_settings_are_fixed(runs, tmp_path):
    folder = shutil.copytree(runs / "mri", tmp_path / "mri")
    config = folder / RESOLVED
    config.write_text(config.read_text().replace(str(runs / "brains"), str(tmp_path / "gone")))
    unlist(folder)
    seal(folder)
    assert msm("evaluate", folder) == 0
    assert read_evaluation(folder).settings["CG-SENSE"] == "λ = 0.01, 30 iterations (fixed)"


def test_classical_methods_fit_the_operator():
    def names(make, **given):
        operator = make((3, 16, 16), **given)
        return list(fitting(Problem(operator.A(torch.zeros(1, 3, 16, 16)), operator)))

    assert names(super_resolution, factor=4) == ["bicubic"]
    assert names(random_inpainting, kept=0.5, generator=torch.Generator().manual_seed(0)) == ["biharmonic"]
    assert names(gaussian_blur, sigma=1.0) == names(colorization) == []


def test_network_calls_of_the_chain_are_counted(runs):
    config = run_config(runs / "hole")
    assert network_calls(config) == 2
    chain = config.model_copy(update={"sample": config.sample.model_copy(update={"score": "chain"})})
    assert network_calls(chain) == 6  # three calls a step for boxes at drop 0.4


def no_run(folder):
    (folder / RESOLVED).unlink()
    return "no run folder"


def no_samples(folder):
    (folder / "samples.npy").unlink()
    return "samples.npy: missing; run the same `msm sample` command again"


def cut_off(folder):
    path = folder / "measured.npz"
    path.write_bytes(path.read_bytes()[:-3000])
    return "measured.npz: damaged"


def pickled(folder):
    np.save(folder / "samples.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return "samples.npy: damaged"


def other_fields(folder):
    path = folder / "records.jsonl"
    path.write_text(path.read_text().replace('"image":', '"extra":1,"image":'))
    return "records.jsonl, line 1: damaged"


def versions_of_references(folder):
    """Text of a million words, were it read as YAML."""
    lists = ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6))
    (folder / "versions.json").write_text(f"{{command: [&a0 [x, x, x, x, x, x, x, x, x, x], {lists}]}}")
    return "versions.json: not the versions of a run"


def no_scores(folder):
    return change(folder, lambda record: record.pop("plain"), "an image has no scores")


def no_records(folder):
    (folder / "records.jsonl").write_text("\n")
    return "records.jsonl: has no records"


def fewer_ranks(folder):
    return change(folder, lambda record: record["ranks"].pop(), "have ranks among other numbers of samples")


def change(folder, what, said):
    """Change the last record that has ranks."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    what([record for record in lines if "ranks" in record][-1])
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    return said


def fewer_names(folder):
    with np.load(folder / "gallery.npz") as found:
        arrays = dict(found)
    np.savez(folder / "gallery.npz", **(arrays | {"names": arrays["names"][1:]}))
    return "gallery.npz: does not fit"


@pytest.mark.parametrize(
    "spoil", [other_fields, versions_of_references, no_scores, no_records, fewer_ranks, fewer_names]
)
def test_a_damaged_evaluation_is_one_line(runs, tmp_path, capsys, spoil):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    unlist(folder)
    expected = spoil(folder)
    assert msm("report", folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("msm: ") and error.count("\n") == 1 and expected in error
    assert not list(folder.glob("*.html"))


def other_shape(folder):
    np.save(folder / "samples.npy", np.zeros((2, 3, 3, 8, 8), np.float32))
    return "do not fit together"


@pytest.mark.parametrize("spoil", [no_run, no_samples, cut_off, pickled, other_shape])
def test_a_mistake_is_one_line_and_writes_nothing(runs, tmp_path, capfd, spoil):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    expected = spoil(folder)
    unlist(folder)
    seal(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capfd.readouterr()
    assert msm("evaluate", folder) == 2
    error = capfd.readouterr().err
    assert error.startswith("msm: ") and error.count("\n") == 1 and expected in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_store_is_for_generated_images(runs, capsys):
    assert msm("evaluate", runs / "hole", "--store", runs / "photos.h5") == 2
    assert "--store: is for generated images" in capsys.readouterr().err
