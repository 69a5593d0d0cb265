"""The figure of a run: every method, its scores in its pictures, one scale a column of maps."""

import re

import pytest
import torch

from msm.evaluate.comparison import all_pictures, reconstructions, write_compared
from msm.evaluate.records import score
from msm.output.figures import Column, write_comparison


def draw(path, number=4, names=("a", "price_$5_or_$6.png"), rows=8):
    """A figure of exact truths, a good and a bad classical method, and samples between them."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(len(names), 1, 16, 16, generator=generator)
    samples = truth[:, None] + 0.1 * torch.randn(len(names), number, 1, 16, 16, generator=generator)
    classical = {"good": truth + 0.01, "bad": truth + 0.5}
    made = reconstructions(0 * truth, classical, samples)
    records = [r for method, (kind, x) in made.items() for r in score(kind, method, x, truth, names)]
    write_compared(path, "it & <that>", names, all_pictures(made, truth, samples), records, rows)
    return path, records


def test_all_methods_have_their_scores_in_their_pictures(tmp_path):
    path, records = draw(tmp_path / "figure.svg")
    text = path.read_text()
    titles = ["input", "good", "bad", "MSM, one sample", "MSM, mean of 4", "truth"]
    maps = ["|error| of MSM, mean of 4", "standard deviation"]
    assert [t for t in re.findall(r">([^<>]+)</text>", text) if t in (*titles, *maps)] == titles + maps
    for record in records:
        assert f">{record.plain.psnr:.2f} dB, SSIM {record.plain.ssim:.3f}<" in text
    assert text.count("RMS 0.") == 4 and "price_$5_or_$6.png" in text and "it &amp; &lt;that&gt;" in text
    best = re.findall(r"fill: #ffd24d[^>]*>([^<]+)<", text)
    assert best == [f"{r.plain.psnr:.2f} dB, SSIM {r.plain.ssim:.3f}" for r in records if r.method == "good"]
    assert text.count("<image ") == 2 * 8 + 2  # pictures, and a bar for each column of maps


@pytest.mark.parametrize(("number", "columns"), [(1, 5 + 1), (2, 6 + 2)])
def test_a_single_sample_has_no_deviation(tmp_path, number, columns):
    path, _ = draw(tmp_path / "figure.svg", number, names=("a",))
    assert path.read_text().count("<image ") == columns + columns - 4 - min(number, 2)


def test_a_figure_has_the_rows_asked_for(tmp_path):
    text = draw(tmp_path / "figure.svg", names=("one", "two", "three"), rows=2)[0].read_text()
    assert ">two<" in text and ">three<" not in text


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_formats_and_the_same_bytes_again(tmp_path, suffix, begins):
    once, again = (draw(tmp_path / f"{name}.{suffix}")[0].read_bytes() for name in ("a", "b"))
    assert once == again and once.startswith(begins)


def test_a_long_name_stays_inside_the_figure(tmp_path):
    """Of a scan, as raw runs draw it: one picture wide, under a heading of 76 letters."""
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    write_comparison(tmp_path / "figure.svg", "a_name_" * 10 + "slice1", [""], [Column("mean", x)])
    lines = re.findall(r">([^<>]*)</text>", (tmp_path / "figure.svg").read_text())
    assert "".join(lines[:-1]) == "a_name_" * 10 + "slice1" and max(map(len, lines)) <= 20 and lines[-1] == "mean"
