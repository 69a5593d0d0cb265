"""Tables of the README and the studies, against the records that they were made of."""

import json
import re
import sys
from pathlib import Path
from statistics import mean

import pytest

from msm.evaluate.held_out import LIMITS, words_of

ROOT = Path(__file__).parents[2]
OUTCOMES = ("detected", "harmless", "taken", "silent", "traceback", "hang", "lost", "left over")
sys.path[:0] = [str(ROOT / "benchmarks" / folder) for folder in ("studies", "speed")]

from held_out import limits as verdict_limits  # noqa: E402
from held_out import rows as verdict_rows  # noqa: E402


def record(name):
    return json.loads((ROOT / f"docs/studies/results/{name}.json").read_text())


def page(name):
    """The text of a page, without what is bold."""
    return (ROOT / name).read_text().replace("**", "")


def short(value, digits=3):
    """A number below 1 as the pages have it: .517; a 5 at the end of a record is rounded up."""
    return f"{value + 1e-9:.{digits}f}".lstrip("0")


def scores(found):
    told = f"{found['psnr']:.2f} / {short(found['ssim'])}"
    return f"{told} / {short(found['lpips'])}" if "lpips" in found else told


def test_reconstruction():
    from reconstruction import generated_row, row

    text, found = page("docs/studies/reconstruction.md"), record("brain")
    for rate in ("R = 4", "R = 6", "R = 8"):
        assert all(row(found, rate, name, "TV") in text for name in found[rate])
    assert all(generated_row(name, each) in text for name, each in found["generated"].items())


def test_readme():
    brain, faces = record("brain"), record("refinement_faces")
    rows = {"brain, 8 coils, R = 4": (brain["R = 4"], "zero-filled", "TV")}
    rows |= {"brain, 8 coils, R = 8": (brain["R = 8"], "zero-filled", "TV")}
    rows |= {"face, 32 × 32 hole": (faces["hole"], "input", "biharmonic")}
    rows |= {"face, ×4": (faces["× 4"], "input", "bicubic")}
    for label, (found, given, classical) in rows.items():
        refined = found["refined"]
        cells = [found[given]["one"], found[classical]["one"], refined["one"], refined["mean of 4"]]
        given, classic, *ours = (scores({name: mean(v) for name, v in cell.items()}) for cell in cells)
        assert f"| {' | '.join([label, given, f'{classical} {classic}', *ours])} |" in page("README.md")


def test_brain_calls():
    found = record("brain_calls")
    for preset in ("published", "best"):
        one = {int(key.split()[0]): each for key, each in found[preset].items() if "," not in key}
        row = [f"{mean(one[n]['psnr']):.2f} / {mean(one[n]['ssim']):.3f}" for n in sorted(one)]
        assert f"| `{preset}` | {' | '.join(row)} |" in page("docs/studies/presets.md")
    gains = {key: each["psnr"] for key, each in found["check"].items()}
    row = [f"{g['mean']:+.2f} ± {g['standard_error']:.2f}, {g['better_slices']}" for g in gains.values()]
    assert " | ".join(row) in page("docs/studies/presets.md")


def test_training_grids():
    for problem, found in record("train_grid").items():
        for method, label in (("MSM", "one sample"), ("MSM, mean of 4", "mean of 4")):
            row = [f"{problem}, {label}"]
            for grid in ("time", "cosine"):
                each = found[method][grid]
                row.append(f"{mean(each['psnr']):.2f} ({short(mean(each['ssim']))})")
            assert f"| {' | '.join(row)} |" in page("docs/studies/mri_training.md")


def test_held_out_points_of_the_scan():
    found, text = record("raw_scan"), page("docs/studies/raw_scan.md")
    methods = ("CG-SENSE", "L1-wavelet", "TV", "start of the network", "MSM, one sample", "MSM, mean of 8")
    scan = found["brain_8ch_R8"]
    assert scan["MSM, mean of 8"]["likelihood_weight"] == 4
    row = [short(scan["zero-filled"]["error"]), *(short(scan[name]["error"], 4) for name in methods)]
    assert f"| {' | '.join(row)} |" in text
    refined = record("raw_scan_refined")["brain_8ch_R8"]
    one, mean_of_8 = (short(refined[f"MSM, {name}"]["error"], 4) for name in ("one sample", "mean of 8"))
    assert f"has {one} with one sample and {mean_of_8} with the mean of 8" in text.replace("\n", " ")
    tried = found["brain_8ch_R8, step and likelihood weight on other points"]
    assert f"| | {' | '.join(tried)} |" in text
    for label in ("one sample", "mean of 4"):
        row = [short(each[label], 4) for each in tried.values()]
        assert f"| {label} | {' | '.join(row)} |" in text
    assert scan["MSM, mean of 8"]["step"] == "proximal"
    judged = found["brain_8ch_R8:0, msm evaluate"]
    dispersion, covered = judged["dispersion"], [round(100 * share) for share in judged["covered"]]
    told = (
        f"is {short(dispersion[0], 2)} ({short(dispersion[1], 2)} to {dispersion[2]:.2f}) of what the samples announce"
    )
    words = " ".join(text.split())
    assert told in words and f"says *{judged['words']}*" in words
    assert (
        f"{100 * judged['nominal']:.0f} % interval of 8 samples held {covered[0]} % ({covered[1]} to {covered[2]})"
        in words
    )
    for name, label in (("head_sagittal_1ch_full", "head"), ("knee_1ch_full", "knee")):
        for r in (2, 4):
            of_scan = found[f"{name}, R = {r}"]
            means = [method for method in of_scan if method.startswith("MSM, mean")]
            row = [of_scan[method] for method in ("zero-filled", *methods[:3], "MSM, one sample", *means)]
            cells = [f"{each['psnr']:.2f} / {short(each['ssim'])}" for each in row]
            assert f"| {label}, R = {r} | {' | '.join(cells)} |" in text


def test_trained_on_noise():
    found, text = record("noise_training"), page("docs/studies/noise.md")
    for run, label in (("0", "no noise"), ("0.1", "ρ = .1, noisy loss"), ("0.2", "ρ = .2, noisy loss")):
        each = found[f"trained: {run}"]
        row = [scores(each[f"test noise {level}, R = 4"]) for level in ("0.01", "0.05", "0.1", "0.2")]
        assert f"| {label} | {' | '.join(row)} |" in text


def test_kills():
    found = record("kills")
    assert found["kills"] == 30 and found["same_bytes"] and "30 times" in page("docs/how-to/processes.md")
    found = record("kills_refine")
    assert (
        found["kills"] == 20
        and found["same_bytes"]
        and "two rounds of `msm refine` 20 times" in page("docs/how-to/processes.md")
    )


def test_attacks():
    found, text = record("attacks"), " ".join(page("SECURITY.md").split())
    kinds = [f"{sum(found[kind].values())} {kind}" for kind in ("spoilt", "killed", "full disk", "low memory")]
    assert f"{found['attacks']} attacks ({', '.join(kinds)})" in text
    outcomes = [sum(each.get(name, 0) for each in found["commands"].values()) for name in OUTCOMES]
    assert ", ".join(f"{count} {name}" for count, name in zip(outcomes, OUTCOMES)) in text
    assert sum(outcomes) == found["attacks"] and len(found["bad"]) == sum(outcomes[3:])


def test_verdicts_without_truth():
    found, text = record("held_out"), page("docs/studies/held_out.md")
    for line in verdict_rows(found):
        assert line in text
    every = [*found["like"].values(), *found["unlike"].values()]
    agree = sum((scan["against_tv"] < 1) == (scan["image_against_tv"] < 1) for scan in every)
    assert f"in {agree} of {len(every)} scans" in text
    assert verdict_limits(found["calibration"]) == LIMITS
    told = ", ".join(f"{name} {LIMITS[key]:g}" for key, name in zip(LIMITS, ("against TV", "dispersion", "residual")))
    assert told in text
    held = {group: [scan["covered"] for scan in scans.values()] for group, scans in found.items()}
    of_all, of_20, unlike, worst = (
        round(100 * share) for share in (*(mean(held[group]) for group in held), min(held["unlike"]))
    )
    text = " ".join(text.split())
    assert f"held {of_all} % of the held-out points of the 40 slices and {of_20} % of those of the 20" in text
    assert f"unlike the training {unlike} %, {worst} % at worst" in text
    most = {name: max(scan[name] for scan in found["unlike"].values()) for name in LIMITS}
    assert f"up to {most['residual']:.2f} of the noise" in text and f"up to {most['dispersion']:.2f}" in text
    words = [words_of(scan) for scan in found["unlike"].values()]
    assert words.count("trust") == 2 and all(words_of(scan) == "trust" for scan in found["like"].values())


def test_the_tutorial_of_old_photos():
    found, text = record("masked_tutorial"), page("docs/tutorials/old_photos.md")
    for name, said in (("biharmonic", "has {} dB"), ("one sample", "one sample {}"), ("mean of 4", "mean of four {}")):
        assert said.format(found[name]["psnr"]) in " ".join(text.split())
    seconds = found["cpu_seconds"]
    assert f"({seconds['train']} seconds of training, {seconds['sample']} of" in " ".join(text.split())


def test_photos_that_miss_pixels():
    found, text = record("masked_photos"), page("docs/how-to/masked_photos.md")
    methods = ["biharmonic", *(f"{model}, {of}" for model in ("MSM", "refined") for of in ("one sample", "mean of 4"))]
    assert f"| missing | {' | '.join(methods)} | above biharmonic |" in text
    for kind in ("boxes", "scratches"):
        above = "{:+.2f} ({:+.2f} to {:+.2f})".format(*found[kind][methods[-1]]["above_biharmonic"])
        row = [f"{found[kind][method]['psnr'][0]:.2f}" for method in methods]
        assert f"| {kind}, {100 * found[kind]['missing']:.0f} % | {' | '.join(row)} | {above} |" in text
    assert all(str(seconds) in text for seconds in found["cpu_seconds"].values())
    above = mean(record("refinement_faces")["hole"]["refined"]["mean of 4"]["psnr"])
    above -= mean(record("refinement_faces")["hole"]["biharmonic"]["one"]["psnr"])
    assert f"is {above:.1f} dB above interpolation" in text
    assert found["hidden"] == {"files_that_differ": 400, "of": 400, "same_store_and_weights": True}


def test_tutorials_take_minutes():
    found = record("tutorials")
    assert found.keys() == {file.stem for file in (ROOT / "docs/tutorials").glob("*.md")}
    for name, each in found.items():
        assert each["cpu_seconds"] <= 300  # on one core
        assert f"*Takes {each['cpu_seconds']} seconds of one core " in page(f"docs/tutorials/{name}.md"), name
        assert re.search(rf"\(tutorials/{name}\.md\) \|.*\| {each['cpu_seconds']} \|", page("docs/README.md")), name


def test_new_users_ways():
    found, text = record("new_user"), " ".join(page("docs/README.md").split())
    took = {way: sum(each["seconds"] for each in commands) for way, commands in found.items()}
    assert f"the end of `make demo` {took['demo']} seconds" in text and f"error bars {took['scan']} seconds" in text
    assert f"200 photos {took['photos']}" in text and f"(the last tutorial) {took['old_photos']}" in text
    assert f"by two steps, {took['published']}." in text
    assert took["demo"] < 600


@pytest.mark.parametrize("name", ["photos", "refine"])
def test_scores_of_tutorials(name):
    text = page(f"docs/tutorials/{name}.md")
    runs = [found for run, found in record("tutorials")[name].items() if run.startswith("runs/")]
    assert runs
    for method, psnr in ((method, psnr) for found in runs for method, psnr in found.items()):
        assert method == "input" or "%" in method or f"{psnr:.1f}" in text, method


def test_coverage_and_verdicts_of_the_tutorial():
    found, text = record("tutorials")["is_it_right"], " ".join(page("docs/tutorials/is_it_right.md").split())
    drawn, fitted = found["runs/drawn"], found["runs/fitted"]
    for level in ("75 %", "50 %", "25 %"):
        assert f"| {level} | {drawn[level]} % | {fitted[level]} % |" in text
    assert f"one has {fitted['MSM, one sample']} dB of PSNR, one of the drawn {drawn['MSM, one sample']}." in text
    assert f"{fitted['MSM, mean of 7']} against {drawn['MSM, mean of 7']} dB" in text
    for run in ("runs/head", "runs/coins"):
        assert all(f"{run}: {line}" in text for line in found[run]["verdict"])


def test_what_the_readme_says_of_intervals():
    from posterior_draws import held

    text = " ".join(page("README.md").split())
    of_slices = held(record("posterior_draws")["brain-4"]["128 px, refined draw 60x1 log measured"])
    eighty, ninety = (round(100 * of_slices[level].value) for level in (0.8, 0.9))
    assert (
        f"how wrong they are: 80 and 90 % intervals hold {eighty} and {ninety} % of 12 of these slices at R = 4" in text
    )
    of_scan = record("raw_scan")["brain_8ch_R8:0, msm evaluate"]
    nominal, covered = (round(100 * share) for share in (of_scan["nominal"], of_scan["covered"][0]))
    assert f"the {nominal} % interval {covered} % of values kept from it" in text
    found = record("held_out")
    trusted = {group: sum(words_of(scan) == "trust" for scan in found[group].values()) for group in ("like", "unlike")}
    assert f"trusted {trusted['like']} of 20" in text and f"warned of {20 - trusted['unlike']} of 20" in text


def test_draws():
    from posterior_draws import row

    text = page("docs/studies/draws.md")
    for name in ("posterior_draws", "posterior_draws_tuning"):
        for methods in record(name).values():
            for found in methods.values():
                assert f"| {row(found)} |" in text, row(found)
    for problems in record("draws_gaussian").values():
        for rows in problems.values():
            for each in rows.values():
                assert " | ".join(law(each[levels]) for levels in ("10", "20", "60")) in text
    for rows in record("draws_sparse").values():
        for each in rows.values():
            held = [f"{100 * v:.0f} ({100 * low:.0f}–{100 * high:.0f})" for v, low, high in each["held"].values()]
            assert f"| {' | '.join(held)} | {each['distance']:.2f} |" in text


def test_refinement():
    from reconstruction import generated_row, row, standing_row

    text, found = page("docs/studies/refinement.md"), record("refinement")
    for rate in ("R = 4", "R = 6", "R = 8"):
        assert all(row(found, rate, name, "TV") in text for name in found[rate])
    assert all(generated_row(name, each) in text for name, each in found["generated"].items())
    faces = record("refinement_faces")
    assert all(generated_row(name, each) in text for name, each in faces["generated"].items())
    for problem, against in (("hole", "biharmonic"), ("× 4", "bicubic")):
        assert all(row(faces, problem, name, against) in text for name in faces[problem])
    for run, rounds in record("refinement_rounds").items():
        assert all(standing_row(run, name, each) in text for name, each in rounds.items())


def law(found):
    """KL in 10⁻³ nats a point, and the share of the variance."""
    return f"{1000 * found['kl']:.2g}, {found['variance']:.2f}" if found["kl"] > 1e-9 else f"0, {found['variance']:.2f}"


def test_what_checks_cost():
    from guards import rows

    found, text = record("guards"), page("docs/studies/speed.md")
    assert "\n".join(rows(found)) in text
    for kind, limit in (("sampling", 1.02), ("training", 1.1)):
        assert all(each.get("ratio_by_parts", each["ratio_of_minima"]) <= limit for each in found[kind].values())
    assert found["store"]["items"] == 10**5 and found["store"]["median_s"] < 1


def test_import():
    rows, text = record("raw_import")["import"]["rows"], page("docs/studies/speed.md")
    for name, label in (("without maps", "without maps"), ("with maps", "with maps"), ("maps", "coil maps alone")):
        cells = []
        for version in (rows[name]["before"], rows[name]["after"]):
            median = version["processor_median_s"] / 10
            cells += [f"{value:.3f}".removeprefix("0") for value in (version["processor_s_each"], median)]
            cells.append(f"{version['gb_per_second']:.3f}".removeprefix("0"))
        cells.append(f"{rows[name]['times']:.1f}")
        assert f"| {' | '.join([label, *cells])} |" in text
        assert rows[name]["times"] > 3
    ratios = [
        f"{rows[n]['before']['clock_s'] / rows[n]['after']['clock_s']:.1f}"
        for n in ("without maps", "with maps", "maps")
    ]
    assert "{},\n{} and {}".format(*ratios) in text
    peaks = [f"{rows['with maps'][version]['peak_gb']:.2f}".removeprefix("0") for version in ("after", "before")]
    assert f"Peak memory is {peaks[0]} GB" in text and f"before it was {peaks[1]} GB" in text
