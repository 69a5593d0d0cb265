"""`msm report`: the numbers of the page are those of the records, and the page works in a real browser."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs import msm, unlist

from msm.config.load import dump_config, load_config
from msm.evaluate.bootstrap import mean
from msm.evaluate.calibration import intervals
from msm.evaluate.records import Record, read_records, read_run
from msm.report.calibration import exact, histogram, uncertainty_table
from msm.report.gallery import viewer
from msm.report.paper_numbers import MRI, paper_fid, paper_rows
from msm.report.remarks import residual_remarks
from msm.report.svg import Series, chart
from msm.report.tables import score_table
from msm.system.places import RESOLVED

CONFIGS = Path(__file__).parents[2] / "src/msm/configs"
CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 180_000  # ms, for a busy machine
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """One page of everything: two runs of the same measurements, a hole, generated images, a training log."""
    folder = tmp_path_factory.mktemp("page")
    training = folder / "training"
    training.mkdir()
    lines = [json.dumps({"step": n, "images": 16 * n, "loss": 1 / n}) + "\n" for n in range(1, 501)]
    (training / "log.jsonl").write_text("".join(lines))
    path = folder / "page.html"
    names = [runs / name for name in ("mri", "mri_short", "hole", "new")]
    assert msm("report", *names, training, "-o", path) == 0
    return path


def tables(text):
    """{(title, nth of that title): {row name: [cells as HTML]}}."""
    found = {}
    for title, body in re.findall(
        r"<figcaption>([^<]*)</figcaption>\s*<div class=\"scroll\".*?<tbody>(.*?)</tbody>", text, re.S
    ):
        rows = {}
        for row in re.findall(r"<tr.*?</tr>", body, re.S):
            name = re.sub(r"<small>(.*?)</small>", r" \1", re.search(r"<th.*?>(.*?)</th>", row, re.S)[1])
            rows[name] = re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)
        number = sum(key[0] == title for key in found)
        found[title, number] = rows
    return found


def test_numbers_of_the_table_are_those_of_the_records(runs, page):
    found = tables(page.read_text())
    records = read_records(runs / "mri")
    for convention in ("plain", "published"):
        table = found[f"Quality, convention {convention}", 0]
        for method in ("zero-filled", "TV", "L1-wavelet", "CG-SENSE", "MSM, mean of 3 mri"):
            scores = [getattr(r, convention) for r in records if r.method == method.removesuffix(" mri")]
            cells = table[method]
            for cell, name, least in zip(cells, ("psnr", "ssim", "nmse"), (2, 3, 4)):
                e = mean([getattr(s, name) for s in scores])
                number, interval = re.fullmatch(
                    r"(?:<strong>)?([\d.]+)(?:</strong>)?<small>(.*)</small>", cell
                ).groups()
                digits = len(number.partition(".")[2])  # so many that the smallest of the column can be read
                assert digits >= least and number == f"{e.value:.{digits}f}"
                assert interval == f"{e.low:.{digits}f} to {e.high:.{digits}f}"
    table = found["Quality, convention plain", 0]
    assert list(table) == [
        "zero-filled", "CG-SENSE", "TV", "L1-wavelet", "MSM, one sample mri", "MSM, mean of 3 mri",
        "MSM, one sample mri_short", "MSM, mean of 3 mri_short",
    ]  # fmt: skip
    assert [table[name][-1] for name in list(table)[4:]] == ["4", "12", "2", "6"]


def test_the_best_of_each_column_is_bold(page):
    for (title, _), table in tables(page.read_text()).items():
        if not title.startswith("Quality"):
            continue
        for column, best in ((0, max), (1, max), (2, min)):
            cells = [row[column] for row in table.values()]
            numbers = [float(re.search(r"[\d.]+", cell)[0]) for cell in cells]
            bold = {number for number, cell in zip(numbers, cells) if "<strong>" in cell}
            assert bold == {best(numbers)}, (title, column)


def test_a_difference_is_taken_image_by_image(runs, page):
    table = tables(page.read_text())["Quality, convention plain", 0]
    scores = {}
    for record in read_records(runs / "mri"):
        scores.setdefault(record.method, []).append(record.plain.psnr)
    classical = [method for method in scores if not method.startswith("MSM")]
    rival = max(classical, key=lambda method: sum(scores[method]))
    assert f"PSNR against {rival}" in page.read_text()
    expected = mean([a - b for a, b in zip(scores["MSM, mean of 3"], scores[rival])])
    assert table["MSM, mean of 3 mri"][3].startswith(f"{expected.value:+.2f}<small>".replace("-", "−"))


def test_calibration_is_that_of_the_ranks(runs, page):
    table = tables(page.read_text())["Calibration: how often intervals of the samples hold the truth", 1]
    records = [r for r in read_records(runs / "hole") if r.ranks]
    ((name, row),) = table.items()
    assert name == "50 % interval MSM, mean of 3, all 3 samples" and row[0] == "50 %"
    for part, cell in zip(("ranks", "ranks_measured", "ranks_unmeasured"), row[1:], strict=True):
        observed = mean([intervals(getattr(r, part))[0].observed for r in records])
        value, low, high = (f"{100 * x:.0f}" for x in (observed.value, *observed.bounds))
        assert cell == f"{value} %<small>{low} to {high} %</small>"
    assert all(sum(r.ranks_measured) == 3 * 3 * 32 * 32 and r.ranks_unmeasured == r.ranks for r in records)
    said = f"MSM, mean of 3: the 50 % interval held {row[1].split('<')[0]} of the truth ("
    assert said in page.read_text() and "2 images)" in page.read_text()


def test_bars_of_ranks_are_shares_of_what_they_should_be():
    def record(name, ranks):
        return Record(image=name, kind="mean", method="MSM", ranks=ranks)

    found = histogram([record("a", (2.0, 1.0, 1.0, 0.0)), record("b", (0.0, 10.0, 10.0, 20.0))])
    assert [x for x, _ in found] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert [e.value for _, e in found] == pytest.approx([1, 1, 1, 1])  # images count alike, however many pixels
    assert found[0][1].low < 0.5 and found[1][1].bounds == (1, 1)
    many = histogram([record("a", (1.0,) * 1001)])
    assert len(many) <= 40 and [e.value for _, e in many] == pytest.approx([1] * len(many))


def test_announced_over_actual_is_of_squares_over_images():
    def record(name, announced, actual):
        return Record(
            image=name, kind="mean", method="MSM", ranks=(1.0,) * 8, announced_error=announced, actual_error=actual
        )

    run = SimpleNamespace(label="", records=[record("a", 0.3, 0.2), record("b", 0.1, 0.4)])
    table = uncertainty_table([run])
    assert [c.text for c in table.rows[0].cells] == ["0.2236", "0.3162", "0.71"]  # the mean of ratios is 0.88
    assert "0.94 for K = 7" in table.note


@pytest.mark.parametrize(
    ("level", "said"), [(0.95, "95 %"), (7 / 9, "77.8 %"), (1 / 3, "33.3 %"), (0.5, "50 %"), (1 - 2 / 40, "95 %")]
)
def test_a_nominal_level_is_said_as_it_is(level, said):
    assert exact(level) == said


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("sample", 0.5, "maximises instead of drawing"), ("sample", 1.0, None), ("sample", 1.24, None),
        ("sample", 2.0, "sample.steps"), ("mean", 0.5, "by rights"), ("mean", 2.0, "sample.steps"),
        ("classical", 0.7, "part of that noise"), ("classical", 1.5, "smooths away"), ("input", 0.0, "noise included"),
    ],
)  # fmt: skip
def test_a_residual_far_from_one_is_explained(kind, value, said):
    records = [Record(image=name, kind=kind, method="it", residual=value) for name in "ab"]
    found = residual_remarks({("it", "run"): records, ("other", ""): [Record(image="a", kind=kind, method="other")]})
    assert (found == []) if said is None else (said in found[0] and f"Residual of it, run ({value:.2f}): " in found[0])


def test_the_pictures_can_be_printed(runs, tmp_path, capfd):
    page, picture = tmp_path / "page.html", tmp_path / "mri.svg"
    assert msm("report", runs / "mri", runs / "mri_short", "-o", page, "--figure", picture) == 0
    text = picture.read_text()
    records = [r for r in read_records(runs / "mri") if r.method == "MSM, mean of 3"]
    for record in records:
        assert f"{record.plain.psnr:.2f} dB, SSIM {record.plain.ssim:.3f}" in text
    assert text.count("|error| of MSM, mean of 3") == 2 and text.count(">TV<") == 1
    again = tmp_path / "again.svg"
    assert msm("report", runs / "mri", runs / "mri_short", "-o", page, "--figure", again) == 0
    assert again.read_bytes() == picture.read_bytes()
    page.unlink()
    for given, expected in (("a.jpg", "must end in .pdf, .svg, .png"), ("a.pdf", "these are of 2")):
        capfd.readouterr()
        assert msm("report", runs / "mri", runs / "hole", "-o", page, "--figure", tmp_path / given) == 2
        error = capfd.readouterr().err
        assert error.startswith("msm: --figure: ") and error.count("\n") == 1 and expected in error
        assert not page.exists() and not (tmp_path / given).exists()


def test_everything_is_inside_the_page_and_escaped(runs, page):
    text = page.read_text()
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style' in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"|url\((?!#)|@import', text)
    assert "00<b>&'.png" not in text and html.escape("00<b>&'.png", quote=False).replace("'", "&#39;") in text
    assert re.search(r"msm sample \S*config.yaml", text) and "msm report" in text and "torch" in text
    assert text.count("<svg") == 2 * 9 and "Training loss: from 0.611 to" in text  # means of three lines of the log
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_papers_numbers_stand_beside_the_same_setting_only():
    config = load_config(CONFIGS / "inverseproblem" / "fmri_CSMRI4_msm_R4_noise0_0_img256.yaml")
    assert paper_rows(config) == MRI[4]
    box = CONFIGS / "inverseproblem" / "ffhq_BOX_msm_p04_img128_EPS.yaml"
    assert [row.psnr for row in paper_rows(load_config(box))] == [18.26, 20.14, 24.71]
    assert not paper_rows(load_config(box, ["inverse_problem.hole=32"]))
    assert not paper_rows(load_config(box, ["inverse_problem.noise_std=0.1"]))
    new = CONFIGS / "generation" / "fmri_msm_R4_noise0_1_img256.yaml"
    assert paper_fid(load_config(new, ["sample.count=3000"])) == {"MSM": 82.17}
    assert not paper_fid(load_config(new, ["sample.count=100"]))


def test_the_papers_numbers_are_in_the_table_of_that_setting(runs, tmp_path):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    unlist(folder)
    settings = ["data.image_size=128", "network.image_size=128", "network.attention_resolutions=[32, 16]"]
    config = load_config(folder / RESOLVED, [*settings, "inverse_problem.hole=64"])
    (folder / RESOLVED).write_text(dump_config(config))
    assert msm("report", folder, "-o", tmp_path / "page.html") == 0
    found = tables((tmp_path / "page.html").read_text())
    assert found["Quality, convention published", 0]["A-DPS paper"][0] == "20.14"
    assert not any("paper" in name for name in found["Quality, convention plain", 0])


def test_what_learned_is_told_by_its_kind_not_its_name(runs):
    run = read_run(runs / "mri", "mine")
    names = {name: name.replace("MSM", "ours") for name in run.evaluation.layers}
    run = replace(
        run,
        records=[r.model_copy(update={"method": names[r.method]}) for r in run.records],
        evaluation=run.evaluation.model_copy(
            update={"layers": {names[name]: kind for name, kind in run.evaluation.layers.items()}}
        ),
        gallery={names.get(name, name): array for name, array in run.gallery.items()},
    )
    other = replace(run, label="other")
    assert [row.name for row in score_table([run, other], "plain").rows if row.note == "other"] == [
        "ours, one sample",
        "ours, mean of 3",
    ]
    shown = viewer([run, other])
    assert shown.layers.count("TV") == 1 and shown.layers[shown.right] == "ours, mean of 3, mine"
    assert [name for name in shown.layers if "other" in name] == [
        "ours, one sample, other",
        "ours, mean of 3, other",
        "standard deviation, other",
    ]


def test_runs_that_differ_in_the_solver_share_a_section(runs, tmp_path):
    folder = shutil.copytree(runs / "mri", tmp_path / "other")
    unlist(folder)
    other = "sample.data_step={kind: proximal, iterations: 9, likelihood_weight: 2}"
    assert load_config(folder / RESOLVED).sample.data_step.iterations == 20
    (folder / RESOLVED).write_text(dump_config(load_config(folder / RESOLVED, [other])))
    assert msm("report", runs / "mri", folder, "-o", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "MSM, mean of 3 other" in tables(page)["Quality, convention plain", 0]
    for how in ("iterations 20, likelihood weight 1", "iterations 9, likelihood weight 2"):
        assert f"data step proximal, {how}" in page  # each run says how it was solved


def test_a_chart_takes_the_ink_of_the_page():
    svg = chart("a < b", "x", "y", [Series("one", [1, 2], [3, 4], [2, 3], [4, 5])], levels=[("two", 3.0)], log_x=True)
    assert svg.startswith("<svg") and 'aria-label="a &lt; b"' in svg and ">one</text>" in svg
    assert "currentColor" in svg and "#010203" not in svg and "#000000" not in svg


def without(path, pattern):
    """Take something out of a file, as older versions wrote it."""
    text, times = re.subn(pattern, "", path.read_text())
    assert times
    path.write_text(text)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "records.jsonl").write_text("{"), "records.jsonl, line 1: damaged"),
        (lambda folder: (folder / "records.jsonl").unlink(), "run first: msm evaluate"),
        (lambda folder: (folder / "gallery.npz").write_bytes(b"PK"), "gallery.npz: damaged"),
        (lambda folder: (folder / "evaluation.json").write_text("{}"), "evaluation.json: damaged"),
        (lambda folder: without(folder / "records.jsonl", r'"kind":"[a-z-]*",'), "kind Field required"),
        (lambda folder: without(folder / "evaluation.json", r'"layers":\s*{[^}]*},'), "layers Field required"),
        (lambda folder: without(folder / "evaluation.json", r'"truth": "truth",'), "does not fit evaluation.json"),
        (lambda folder: shutil.rmtree(folder), "no run folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(runs, tmp_path, capfd, spoil, expected):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    unlist(folder)
    spoil(folder)
    capfd.readouterr()
    assert msm("report", folder, "-o", tmp_path / "page.html") == 2
    error = capfd.readouterr().err
    assert error.startswith("msm: ") and error.count("\n") == 1 and expected in error
    assert not (tmp_path / "page.html").exists()


# In a browser


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("the page is not opened in a browser: playwright is missing (pip install playwright)")
    if not CHROMIUM.exists():
        pytest.skip(f"the page is not opened in a browser: {CHROMIUM} is missing (apt-get install chromium)")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS.split(), timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desktop-light", "phone-dark"])
def tab(browser, page, request):
    """The page, opened; afterwards: no network request, no error in the console, nothing wider than the window."""
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    tab, asked, errors = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.as_uri())
    yield tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()] and not errors
    context.close()


def picture(tab, viewer):
    """What the first viewer shows, as PNG bytes."""
    return viewer.locator(".pair").screenshot()


def test_images_keep_their_shape(runs, tmp_path, browser):
    """Scans have more rows than columns, or fewer."""
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    unlist(folder)
    with np.load(folder / "gallery.npz") as found:
        cropped = {
            name: images if name == "names" else images[..., : images.shape[-1] // 2] for name, images in found.items()
        }
    np.savez(folder / "gallery.npz", **cropped)
    assert msm("report", folder, "-o", tmp_path / "page.html") == 0
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto((tmp_path / "page.html").as_uri())
    for box in (tab.locator(side).first.bounding_box() for side in (".pair", ".pair .left", ".pair .right")):
        assert box["height"] == pytest.approx(2 * box["width"], rel=0.01)
    assert tab.locator(".thumbs img").first.evaluate("e => getComputedStyle(e).objectFit") == "cover"
    tab.close()


def test_the_slider_moves_by_keyboard(tab):
    viewer = tab.locator(".viewer").first
    slider = viewer.locator("input[type=range]")
    slider.focus()
    seen = [picture(tab, viewer)]
    for key, value in (("End", "100"), ("Home", "0"), ("ArrowRight", "1")):
        tab.keyboard.press(key)
        assert slider.input_value() == value
        assert viewer.locator(".pair").evaluate("e => e.style.getPropertyValue('--split')") == f"{value}%"
        seen.append(picture(tab, viewer))
    assert len(set(seen[:3])) == 3  # half, all left, all right
    assert slider.get_attribute("aria-valuetext") == "1 % zero-filled, 99 % MSM, mean of 3, mri"


def test_methods_are_chosen_by_keyboard(tab):
    viewer = tab.locator(".viewer").first
    viewer.locator("input[type=range]").focus()
    tab.keyboard.press("Home")  # the right picture alone
    viewer.locator("input[name=s1-right]:checked").focus()
    seen, names = [], []
    for _ in range(9):
        seen.append(picture(tab, viewer))
        names.append(viewer.locator(".right-said b").inner_text())
        tab.keyboard.press("ArrowRight")
    assert len(set(names)) == len(set(seen)) == 9 and {"truth", "TV", "zero-filled"} <= set(names)
    assert any(name.startswith("standard deviation") for name in names)


def test_errors_and_images_are_shown(tab):
    viewer = tab.locator(".viewer").first
    before = picture(tab, viewer)
    viewer.locator("[data-error=left]").press("Space")
    wrong = picture(tab, viewer)
    assert viewer.locator(".left-said").inner_text().startswith("error of zero-filled") and wrong != before
    viewer.locator("input[name=s1-image]").first.focus()
    tab.keyboard.press("ArrowRight")
    assert viewer.locator(".name").inner_text() == "1.png" and picture(tab, viewer) != wrong
    viewer.locator("label", has_text="truth").first.click()
    assert viewer.locator("[data-error=left]").is_disabled()  # the truth has no error
    assert viewer.locator(".left-said b").inner_text() == "truth"


def test_a_finger_or_mouse_moves_the_slider(tab):
    viewer = tab.locator(".viewer").nth(1)
    pair = viewer.locator(".pair")
    pair.scroll_into_view_if_needed()
    box = pair.bounding_box()
    pair.click(position={"x": box["width"] * 0.2, "y": box["height"] / 2})
    assert viewer.locator("input[type=range]").input_value() == "20"
    assert viewer.locator(".name").inner_text() == "00<b>&'.png"


def test_generated_images_stand_beside_their_nearest_measurement(tab):
    viewer = tab.locator(".viewer").nth(2)
    assert viewer.locator("[data-error]").count() == 0
    assert re.fullmatch(
        r"\d\d<b>&'\.png, distance \d\.\d{3}", viewer.locator(".right-said").inner_text().splitlines()[-1]
    )


def test_tables_and_charts_fit_the_page(tab):
    """No table scrolls sideways, every number has its name in sight, one drawing a chart, as wide as the page."""
    assert tab.locator(".scroll").evaluate_all("all => all.every((e) => e.scrollWidth <= e.clientWidth)")
    named = tab.locator("tbody td:not(.none)").first
    wide = tab.viewport_size["width"] > 1000
    label = named.evaluate("e => getComputedStyle(e, '::before').content")
    assert label == ("none" if wide else '"PSNR, dB ↑"') and tab.locator("thead").first.is_visible() == wide
    sizes = tab.locator("td, td small, th small").evaluate_all("all => all.map((e) => getComputedStyle(e).fontSize)")
    assert min(float(size.removesuffix("px")) for size in sizes) >= 12
    page = tab.locator(".charts").first.bounding_box()
    rows = {}
    for figure in tab.locator(".charts").first.locator("figure").all():
        (shown,) = [svg for svg in figure.locator("svg").all() if svg.is_visible()]
        box = shown.bounding_box()
        rows.setdefault(round(figure.bounding_box()["y"]), []).append(box["width"])
        text = shown.locator("text").first.evaluate("e => e.getBoundingClientRect().height")
        assert text >= 9, "axis labels too small to read"
    assert all(sum(widths) >= 0.95 * page["width"] for widths in rows.values())


def test_text_can_be_read_in_both_colour_schemes(tab):
    for selector in ("body", ".note", "dt", "td strong", "svg", ".chips input:checked + span"):
        ratio = tab.locator(selector).first.evaluate(CONTRAST)
        assert ratio >= 4.5, (selector, ratio)


CONTRAST = """element => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const linear = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  let below = element;
  const clear = (e) => getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)";
  while (clear(below)) below = below.parentElement;
  const a = light(getComputedStyle(element).color), b = light(getComputedStyle(below).backgroundColor);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_what_the_documentation_says_runs(runs, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md").read_text()
    (tmp_path / "runs").mkdir()
    for name, folder in (("brain15", "mri"), ("brain50", "mri_short")):
        (tmp_path / "runs" / name).symlink_to(runs / folder)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    msm (report runs/brain.*)$", text, re.M)
    assert len(commands) == 3
    for command in commands:
        assert msm(*command.split()) == 0
    assert (tmp_path / "brain15.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "brain.html").exists() and (runs / "mri" / "report.html").exists()
    capsys.readouterr()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(example, {})
    assert re.search(r"TV: \d\d\.\d\d dB, \d\d\.\d\d to \d\d\.\d\d", capsys.readouterr().out)


@pytest.mark.parametrize("y", [[0.084, 0.081], [0.5, 0.002]])
def test_logarithmic_axes_have_plain_numbers(y):
    drawn = chart("loss", "images", "loss", [Series("loss", [1, 2], y)], log_y=True)
    assert "mathdefault" not in drawn and (">0.083<" in drawn or ">0.01<" in drawn)
