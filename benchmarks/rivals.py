"""MSM against methods with networks, at equal data, network and training, on MRI. Writes JSON and a page.

    python benchmarks/rivals.py train ssdu CONFIG setting.dataset_dir=STORE setting.save_dir=RUN [key=value …]
    python benchmarks/rivals.py train ambient CONFIG …
    python benchmarks/rivals.py evaluate IMAGES --runs msm=RUN oracle=RUN ssdu=RUN ambient=RUN [--methods …]
    python benchmarks/rivals.py generate IMAGES --runs msm=RUN oracle=RUN ambient=RUN
    python benchmarks/rivals.py table

STORE is what `msm acquire` writes for CONFIG, the same that MSM was trained on; MSM and the oracle are trained by
`msm train`. The commands that made docs/results/rivals.json stand in docs/results.md, whose tables `table` writes anew
from it. All methods reconstruct the same measurements of the first COUNT images by name; settings are those of the
highest mean PSNR at the first acceleration on the images after them. A run adds to the records.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rival_methods import Bounded, Physics, ambient_loss, ddnm, diffpir, dps, image_mean, ssdu_image, ssdu_loss
from torch import Generator, Tensor

from msm import MultiCoil, generate, reconstruct
from msm.baselines import tune
from msm.classical import MRI
from msm.config import Config, dump_config, load_config
from msm.data.acquire import Source
from msm.data.store import MeasurementStore
from msm.denoiser import PartialDenoiser
from msm.evaluation import Observation, make_denoiser, make_masks, observe
from msm.inputs import sources
from msm.intervals import Estimate, difference, mean, of_sets
from msm.masks import Masks
from msm.metrics import image_metrics, psnr
from msm.network import ADMNetwork
from msm.perceptual import wavelet_distance, wavelet_features
from msm.presets import preset
from msm.report import write_text
from msm.sampling import ReverseProcess, ddim
from msm.schedule import Grid
from msm.settings import CartesianMaskConfig, InverseProblemConfig
from msm.training import Trainer

ROOT = Path(__file__).parents[1]
RECORDS, PAGE = ROOT / "docs/results/rivals.json", ROOT / "docs/results.md"
NOISE_STD, CALLS, DRAWS, TUNING, GENERATED_AT_ONCE = 0.01, 60, 3, 4, 16
HELD_OUT = 0.4  # SSDU's share
MSM = "MSM"


# Training


def make_rival(network: ADMNetwork, config: Config) -> PartialDenoiser:
    """A denoiser whose loss reaches beyond its input: Ambient's and SSDU's."""
    denoiser = make_denoiser(network, config.diffusion)
    denoiser.parametrisation = Bounded(denoiser.prior, iterations=config.diffusion.sense_iterations)
    return denoiser


def ambient_masks(config: Config) -> CartesianMaskConfig:
    """The family of Ambient's further-corrupted masks: R becomes R + 1, as Aali et al. have it."""
    return config.data.mask.model_copy(update={"acceleration": config.data.mask.acceleration + 1})


def train(kind: str, config: Config) -> None:
    """Train a rival as `msm train` trains MSM; the same command again goes on from the newest checkpoint."""
    folder, settings = config.setting.save_dir, config.train
    torch.manual_seed(settings.seed)
    denoiser = make_rival(ADMNetwork(**config.network.model_dump()), config)
    masks = make_masks(config.data.mask, config.data.image_size)
    store, grid = MeasurementStore(config.setting.dataset_dir), config.diffusion.train_grid
    trainer = Trainer(denoiser, store, masks, folder, settings, train_grid=grid)
    generator = Generator().manual_seed(settings.seed)
    keep = config.data.mask.acceleration / ambient_masks(config).acceleration
    trainer.loss = ssdu_loss(HELD_OUT, generator) if kind == "ssdu" else ambient_loss(masks, keep, generator)
    cost = folder / "cost.json"
    before = json.loads(cost.read_text())["cpu_seconds"] if cost.exists() else 0
    write_text(folder / "config.yaml", dump_config(config))
    trainer.run()
    seconds = round(before + time.process_time())
    write_text(cost, json.dumps({"images": settings.images, "cpu_seconds": seconds}) + "\n")


def training_cost(run: Path) -> dict[str, int]:
    """Images a run was trained on and, where it was measured, the CPU seconds; `msm train` logs the images only."""
    if (run / "cost.json").exists():
        return json.loads((run / "cost.json").read_text())
    return {"images": json.loads((run / "log.jsonl").read_text().splitlines()[-1])["images"]}


# Reconstruction


@dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Args:
        run: (config of MSM, denoiser, observation, setting) -> images (B, 1, H, W).
        trained: name of the run whose network it calls; "" for none.
        calls: network calls an image.
        backward: whether each call is differentiated too, which costs about two calls more.
        grid: settings to choose from.
    """

    run: Callable[[Config, PartialDenoiser | None, Observation, tuple], Tensor]
    trained: str = ""
    calls: int = CALLS
    backward: bool = False
    grid: tuple[tuple, ...] = ((),)


def image_process(size: tuple[int, int], seeds: range, grid: Grid = "time") -> ReverseProcess:
    """Levels and noise of a reverse process in image space."""
    return ReverseProcess(
        *(torch.nn.Identity(), one_coil(size), whole_masks(size), (1, *size), seeds, CALLS),
        *(1, 1.0, False, "average", grid),
    )


def whole_masks(size: tuple[int, int]) -> Masks:
    """The family of the one mask that keeps everything."""
    return make_masks(CartesianMaskConfig(acceleration=1), size)


def one_coil(size: tuple[int, int]) -> MultiCoil:
    """T that sees the whole image: what white noise in the image is to the oracle."""
    return MultiCoil(torch.ones(1, 1, *size, dtype=torch.complex64))


def height_width(z: Tensor) -> tuple[int, int]:
    """Size of the images of z (B, coils, H, W)."""
    return z.shape[-2], z.shape[-1]


def oracle_sample(sampler: Callable[..., Tensor], config: Config, denoiser, seen: Observation, setting: tuple):
    """A posterior sample by the oracle and a sampler of `rival_methods`."""
    size = height_width(seen.y)
    whole = torch.ones(len(seen.y), 1, *size, dtype=torch.bool)
    process, physics = image_process(size, range(len(seen.y))), Physics(seen.operator, seen.transform)
    posterior_mean = image_mean(denoiser, whole, one_coil(size))
    return sampler(posterior_mean, seen.y, physics, process.start()[0], process, *setting)


def ambient_sample(config: Config, denoiser, seen: Observation, setting: tuple) -> Tensor:
    """A posterior sample by A-DPS: every image has one further-corrupted mask, at all levels."""
    size = height_width(seen.y)
    mask = make_masks(ambient_masks(config), size).sample(len(seen.y), Generator().manual_seed(0))
    process, physics = image_process(size, range(len(seen.y))), Physics(seen.operator, seen.transform)
    posterior_mean = image_mean(denoiser, mask, seen.transform)
    return dps(posterior_mean, seen.y, physics, process.start()[0], process, *setting)


def msm_sample(samples: int, draws: int, whole: bool, config: Config, denoiser, seen: Observation, setting: tuple):
    """Mean of posterior samples by MSM's preset `best`, with the masks of training, or one that keeps the whole."""
    mask = CartesianMaskConfig(acceleration=1) if whole else config.data.mask
    count, masks, total = len(seen.y), make_masks(mask, tuple(seen.y.shape[-2:])), 0
    for first in range(0, samples * count, count):
        z = reconstruct(
            *(denoiser, seen.y, seen.operator, seen.transform, masks, tuple(seen.y.shape[1:])),
            **{"seeds": range(first, first + count), "noise_std": seen.noise_std},
            **preset("best", inverse_problem=True, mri=True) | {"steps": CALLS // draws, "draws": draws},
        )
        total = total + seen.transform.adjoint(z) / samples
    return total


def linear(iterations: int, config: Config, denoiser, seen: Observation, setting: tuple) -> Tensor:
    """Phase-constrained SENSE; by 4 iterations it is what all networks start from."""
    sense, sigma = Bounded(iterations=iterations), torch.full((len(seen.y), 1, 1, 1), setting[0])
    phase, m_0 = sense.linear_estimate(seen.y, seen.operator.mask, sigma, seen.transform)
    return phase * m_0


def ssdu(config: Config, denoiser, seen: Observation, setting: tuple) -> Tensor:
    return ssdu_image(denoiser, seen.y, seen.operator.mask, seen.transform)


def zero_filled(config: Config, denoiser, seen: Observation, setting: tuple) -> Tensor:
    return seen.input


def total_variation(config: Config, denoiser, seen: Observation, setting: tuple) -> Tensor:
    return MRI["TV"].run(seen, setting)


ZETAS = ((0.3,), (1.0,), (3.0,), (10.0,))
PIR = partial(diffpir, noise_std=NOISE_STD)
METHODS = {
    "zero-filled": Method(zero_filled, calls=0),
    "TV": Method(total_variation, calls=0, grid=MRI["TV"].grid),
    "linear start": Method(partial(linear, 4), calls=0, grid=((0.01,), (0.03,), (0.1,))),
    "the same, 20 iterations": Method(partial(linear, 20), calls=0, grid=((0.01,), (0.03,), (0.1,))),
    "SSDU": Method(ssdu, "ssdu", 1),
    "A-DPS": Method(ambient_sample, "ambient", backward=True, grid=ZETAS),
    MSM: Method(partial(msm_sample, 1, DRAWS, False), "msm"),
    "MSM, mean of 4": Method(partial(msm_sample, 4, DRAWS, False), "msm", calls=4 * CALLS),
    "oracle, DPS": Method(partial(oracle_sample, dps), "oracle", backward=True, grid=ZETAS),
    "oracle, DDNM": Method(partial(oracle_sample, ddnm), "oracle"),
    "oracle, DiffPIR": Method(
        partial(oracle_sample, PIR), "oracle", grid=tuple(itertools.product((1.0, 10.0), (0.3, 1.0)))
    ),
    "oracle, MSM's sampler": Method(partial(msm_sample, 1, 1, True), "oracle"),
}


def load(method: Method, runs: dict[str, Path]) -> PartialDenoiser | None:
    """The denoiser of a method, from the run that trained it."""
    if not method.trained:
        return None
    config = load_config(runs[method.trained] / "config.yaml")
    network = ADMNetwork.load(runs[method.trained] / "weights").eval().requires_grad_(False)
    bounded = method.trained in ("ssdu", "ambient")
    return make_rival(network, config) if bounded else make_denoiser(network, config.diffusion)


def problem(acceleration: float, config: Config) -> InverseProblemConfig:
    mask = config.data.mask.model_copy(update={"acceleration": acceleration})
    return InverseProblemConfig(operator="undersampling", mask=mask, noise_std=NOISE_STD)


def evaluate(folder: Path, runs: dict[str, Path], names: list[str], accelerations: list[float], count: int) -> None:
    """Reconstruct by each method and add its scores to the records."""
    config = load_config(runs["msm"] / "config.yaml")
    found = list(itertools.islice(sources(config.data, folder, "test"), count + TUNING))
    items, apart = found[:count], found[count:]
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {"training": {}, "scores": {}}
    records["training"] |= {name: training_cost(run) for name, run in runs.items()}
    for name in names:
        method = METHODS[name]
        if method.trained and method.trained not in runs:
            continue
        run = partial(method.run, config, load(method, runs))
        setting = choose(run, method.grid, apart, accelerations[0], config)
        for acceleration in accelerations:
            seen, started = observe(items, problem(acceleration, config), config.data), time.process_time()
            x_hat = run(seen, setting)
            seconds = round((time.process_time() - started) / count, 2)
            scores = image_metrics(x_hat, truth(items), convention="plain")
            about = {"trained": method.trained, "calls": method.calls, "backward": method.backward}
            rounded = {key: [round(value, 4) for value in values] for key, values in scores.items()}
            entry = about | {"setting": setting, "cpu_seconds_per_image": seconds} | rounded
            records["scores"].setdefault(f"R = {acceleration:g}", {})[name] = entry
            print(name, acceleration, setting, f"{mean(scores['psnr']).value:.2f} dB, {seconds} s", flush=True)
            write_text(RECORDS, json.dumps(records) + "\n")


def truth(items: list[Source]) -> Tensor:
    return torch.stack([item.image for item in items])


def choose(run: Callable[..., Tensor], grid: tuple, apart: list[Source], acceleration: float, config: Config) -> tuple:
    """The setting of the highest mean PSNR on images kept apart."""
    if len(grid) == 1:
        return grid[0]
    seen = observe(apart, problem(acceleration, config), config.data)
    return tune(partial(run, seen), grid, truth(apart), partial(psnr, convention="plain"))


# Generation


def oracle_images(config: Config, denoiser: PartialDenoiser, transform: MultiCoil, seeds: range) -> Tensor:
    """Images of the oracle: one mask, which keeps the whole of one coil that sees everything."""
    size = height_width(transform.maps)
    options = preset("best") | {"steps": CALLS, "draws": 1}
    z = generate(denoiser, one_coil(size), whole_masks(size), (1, *size), seeds=seeds, **options)
    return one_coil(size).adjoint(z)


def msm_images(config: Config, denoiser: PartialDenoiser, transform: MultiCoil, seeds: range) -> Tensor:
    """Images of MSM by its preset `best`."""
    masks, shape = make_masks(config.data.mask, tuple(transform.maps.shape[-2:])), tuple(transform.maps.shape[1:])
    options = preset("best") | {"steps": CALLS // DRAWS, "draws": DRAWS}
    return transform.adjoint(generate(denoiser, transform, masks, shape, seeds=seeds, **options))


def ambient_images(config: Config, denoiser: PartialDenoiser, transform: MultiCoil, seeds: range) -> Tensor:
    """Images of Ambient diffusion: ancestral steps in image space, each image with one further-corrupted mask."""
    size = height_width(transform.maps)
    mask = make_masks(ambient_masks(config), size).sample(len(seeds), Generator().manual_seed(seeds[0]))
    posterior_mean, process = image_mean(denoiser, mask, transform), image_process(size, seeds, "log")
    x, _ = process.start()
    with torch.no_grad():
        for level, _, noise in process:
            x = ddim(x, posterior_mean(x, level), level, 1.0, noise[:, -1])
    return x


GENERATORS = {"oracle": oracle_images, "msm": msm_images, "ambient": ambient_images}


def generate_all(folder: Path, runs: dict[str, Path], count: int) -> None:
    """Generate by each network and add the Fréchet distances from real slices to the records."""
    config = load_config(runs["msm"] / "config.yaml")
    items = list(sources(config.data, folder, "test"))
    real = wavelet_features(truth(items).abs())
    records = json.loads(RECORDS.read_text())
    found = records.setdefault("generation", {})
    half = len(real) // 2
    found["real slices"] = distance_record(real[:half], real[half:]) | {"calls": 0}
    for name in (name for name in GENERATORS if name in runs):
        own = load_config(runs[name] / "config.yaml")
        network = ADMNetwork.load(runs[name] / "weights").eval().requires_grad_(False)
        denoiser = make_rival(network, own) if name == "ambient" else make_denoiser(network, own.diffusion)
        images = []
        for first in range(0, count, GENERATED_AT_ONCE):
            seeds = range(first, min(first + GENERATED_AT_ONCE, count))
            maps = torch.stack([items[k % len(items)].maps for k in seeds])
            images.append(GENERATORS[name](config, denoiser, MultiCoil(maps), seeds).abs())
        found[name] = distance_record(wavelet_features(torch.cat(images)), real) | {"calls": CALLS}
        print(name, found[name], flush=True)
        write_text(RECORDS, json.dumps(records) + "\n")


def distance_record(features: Tensor, reference: Tensor) -> dict:
    """FD-wavelet with its interval, and the numbers of images."""
    e = of_sets(wavelet_distance, features, reference)
    return {"fd_wavelet": [e.value, e.low, e.high], "count": len(features), "reference": len(reference)}


# The page


def interval(e: Estimate, digits: int, sign: str = "") -> str:
    if e.low is None or e.high is None:
        return f"{e.value:{sign}.{digits}f}"
    return f"{e.value:{sign}.{digits}f} [{e.low:{sign}.{digits}f}, {e.high:{sign}.{digits}f}]"


def tables(records: dict) -> str:
    """The tables of the page, in Markdown."""
    lines = ["| network | training images | CPU minutes |", "|---|---|---|"]
    for name, cost in records["training"].items():
        minutes = f"{cost['cpu_seconds'] / 60:.0f}" if "cpu_seconds" in cost else "not measured"
        lines.append(f"| {name} | {cost['images']:,} | {minutes} |")
    for problem_name, scores in records["scores"].items():
        count = len(scores[MSM]["psnr"])
        lines += ["", f"### {problem_name}, {count} slices", ""]
        columns = ["method", "network calls", "PSNR, dB", "SSIM", "NMSE", "PSNR − MSM's", "s an image"]
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for name in (name for name in METHODS if name in scores):
            s = scores[name]
            apart = "" if name == MSM else interval(difference(s["psnr"], scores[MSM]["psnr"]), 2, "+")
            calls = f"{s['calls']}, with gradients" if s["backward"] else str(s["calls"])
            row = [f"**{name}**" if name == MSM else name, calls, interval(mean(s["psnr"]), 2)]
            row += [interval(mean(s["ssim"]), 3), interval(mean(s["nmse"]), 3), apart]
            lines.append(f"| {' | '.join([*row, str(s['cpu_seconds_per_image'])])} |")
        if missing := [name for name in METHODS if name not in scores]:
            lines += ["", f"Not measured yet: {'; '.join(missing)}."]
        chosen = {n: ", ".join(map(str, s["setting"])) for n, s in scores.items() if len(METHODS[n].grid) > 1}
        lines += ["", f"Settings chosen: {'; '.join(f'{name} {setting}' for name, setting in chosen.items())}."]
    if "generation" in records:
        lines += [
            "",
            "### Generated slices",
            "",
            "| images of | network calls | images | FD-wavelet |",
            "|---|---|---|---|",
        ]
        for name, entry in sorted(records["generation"].items(), key=lambda item: item[1]["fd_wavelet"][0]):
            e = Estimate(*entry["fd_wavelet"], entry["count"])
            lines.append(f"| {name} | {entry['calls']} | {entry['count']} | {interval(e, 1)} |")
    return "\n".join(lines)


def with_tables(page: str, records: dict) -> str:
    """The page with the tables between its two marks written anew."""
    begin, end = "<!-- rivals -->\n", "<!-- end of rivals -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE}: the marks {begin.strip()} and {end.strip()} are missing; put them back")
    return before + begin + tables(records) + "\n" + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("kind", choices=["ssdu", "ambient"])
    training.add_argument("config", type=Path)
    training.add_argument("overrides", nargs="*", metavar="key=value")
    evaluation = commands.add_parser("evaluate")
    evaluation.add_argument("folder", type=Path)
    evaluation.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    evaluation.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    evaluation.add_argument("--acceleration", type=float, nargs="+", default=[4, 8])
    evaluation.add_argument("--count", type=int, default=16)
    generation = commands.add_parser("generate")
    generation.add_argument("folder", type=Path)
    generation.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    generation.add_argument("--count", type=int, default=128)
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "train":
        train(options.kind, load_config(options.config, options.overrides))
    elif options.command == "table":
        write_text(PAGE, with_tables(PAGE.read_text(), json.loads(RECORDS.read_text())))
    else:
        runs = {name: Path(run) for name, _, run in (given.partition("=") for given in options.runs)}
        if options.command == "generate":
            generate_all(options.folder, runs, options.count)
        else:
            evaluate(options.folder, runs, options.methods, options.acceleration, options.count)


if __name__ == "__main__":
    main()
