"""The demo: every job is a command that a user could type, and what it leaves behind."""

from pathlib import Path

import torch
from runs import msm

from msm.data.samples import brain_slices, portrait
from msm.runs import demo
from msm.runs.settings import sampling_config


def test_demo_inputs_are_real_images_of_full_range():
    items = brain_slices(64, 8)
    images = torch.stack([item.image for item in items]).abs()
    assert images.amax((1, 2, 3)).allclose(torch.ones(len(items))) and 0.3 < (images < 0.02).float().mean() < 0.8
    assert portrait(64).image.shape == (3, 64, 64) and -1 <= portrait(64).image.min() < portrait(64).image.max() <= 1


def test_every_job_of_the_demo_is_a_command_that_fits_its_model(tmp_path):
    for kind, jobs in demo.JOBS.items():
        for name, overrides in jobs:
            places = [f"setting.dataset_dir={tmp_path}", f"setting.save_dir={tmp_path / name}", "sample.preset=best"]
            config = sampling_config(Path(f"bundled:{kind}_refined"), [*places, *overrides])
            assert config.sample.count in (1, 3, 16) and (config.inverse_problem is None) == name.endswith("new")
            if config.data.is_mri and config.inverse_problem:  # its centre is that of the training
                assert config.inverse_problem.mask.center == config.data.mask.center


def test_the_demo_makes_runs_and_one_page_of_them(tmp_path, monkeypatch, capsys):
    few = ["sample.steps=2", "sample.samples=2"]
    name, enlarge = demo.FACES[1]
    brains = ("brain_new", [*demo.NEW, *few, "sample.count=2"])
    chosen = {"brain": [brains], "faces": [(name, [*enlarge, *few])]}
    monkeypatch.setattr(demo, "JOBS", chosen)
    assert msm("demo", "-o", tmp_path / "out") == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Generated images" in page and "Super resolution" in page and "bicubic" in page
    assert len(list((tmp_path / "out/data/brain").glob("*.png"))) == 6
    assert (tmp_path / "out/face_x4/compare.png").is_file() and (tmp_path / "out/brain_new/grid.png").is_file()
    assert capsys.readouterr().out.count("\nmsm sample bundled:") == 2
