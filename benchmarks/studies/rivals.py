"""MSM against methods with networks, at equal data, network and training. Writes JSON and pictures.

    python benchmarks/studies/rivals.py train KIND CONFIG setting.dataset_dir=STORE setting.save_dir=RUN [key=value …]
    python benchmarks/studies/rivals.py evaluate IMAGES --runs msm=RUN oracle=RUN ssdu=RUN ambient=RUN msm_noisy=RUN …
    python benchmarks/studies/rivals.py generate IMAGES --runs msm=RUN oracle=RUN ambient=RUN msm_noisy=RUN …
    python benchmarks/studies/rivals.py calibrate IMAGES --runs msm=RUN

KIND is msm, oracle, ssdu (MRI only) or ambient; STORE is what `msm acquire` writes for CONFIG, the same for all but the
oracle, whose store has whole images. Runs called NAME_noisy were trained on noise 0.1. The commands that made
docs/studies/results/rivals.json stand in docs/studies/rivals.md; rival_tables.py makes its tables of the records. All
methods reconstruct the same measurements of the first COUNT images by name; settings are those of the highest mean PSNR
on the images after them. A run adds to the records.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rival_methods import (
    Bounded,
    Inpainting,
    Physics,
    ambient_loss,
    ddnm,
    diffpir,
    dps,
    image_mean,
    ssdu_image,
    ssdu_loss,
)
from torch import Generator, Tensor, nn
from torchvision.utils import make_grid, save_image

from msm import (
    ADMNetwork,
    BoxMasks,
    Identity,
    Masks,
    Measurement,
    MeasurementStore,
    MultiCoil,
    PartialDenoiser,
    Problem,
    Proximal,
    Sampler,
    Trainer,
    VPSchedule,
    generate,
    reconstruct,
)
from msm.config.build import make_denoiser, make_loss, make_masks
from msm.config.load import Config, dump_config, load_config
from msm.config.measured import (
    AnyMask,
    AnyProblem,
    BoxMaskConfig,
    BoxProblem,
    CartesianMaskConfig,
    SuperResolutionProblem,
    UndersamplingProblem,
    VariableDensityMaskConfig,
)
from msm.data.acquire import Source
from msm.evaluate.bootstrap import mean, of_sets
from msm.evaluate.calibration import foreground, intervals, rank_counts, residual_ratio, spread_and_error
from msm.evaluate.classical import MRI, fitting, tune
from msm.evaluate.metrics import image_metrics, psnr
from msm.evaluate.perceptual import wavelet_distance, wavelet_features
from msm.operators import Undersampling
from msm.runs.inputs import sources
from msm.runs.weights import new_denoiser
from msm.sample.observe import coil_maps, observe
from msm.sampling import ReverseProcess, ddim
from msm.schedule import Grid
from msm.system.files import write_text
from msm.transforms import Transform

RECORDS = Path(__file__).parents[2] / "docs/studies/results/rivals.json"
NOISE_STD, CALLS, TUNING, GENERATED_AT_ONCE, SHOWN = 0.01, 60, 4, 16, 8
HELD_OUT = 0.4  # SSDU's share
SAMPLES, SHARES = 39, (0.5, 0.8, 0.9, 0.95)  # of calibration
TRAINING_NOISE = 0.1  # of the runs called NAME_noisy
MSM, NOISY = "MSM", f", ρ = {TRAINING_NOISE}"
PROBLEMS = {  # of each kind of data
    "slices": ("R = 4", "R = 8"),
    "images": ("box inpainting", "super-resolution × 4"),
}


# Training


def make_rival(kind: str, network: nn.Module, config: Config) -> PartialDenoiser:
    """The denoiser that a kind of network trains: MSM's own, or one whose loss reaches beyond its input."""
    denoiser = make_denoiser(network, config.diffusion)
    if kind in ("ambient", "ssdu"):
        iterations = config.diffusion.sense_iterations
        sense = config.data.is_mri
        denoiser.parametrisation = Bounded(denoiser.prior, iterations=iterations) if sense else Inpainting()
    return denoiser


def ambient_masks(config: Config) -> tuple[AnyMask, float]:
    """The family of Ambient's further-corrupted masks, and the share of the acquired that they keep.

    R becomes R + 1, as Aali et al. have it; of boxes one more is dropped.
    """
    mask = config.data.mask
    if isinstance(mask, BoxMaskConfig):
        further = mask.model_copy(update={"drop": mask.drop + mask.grid**-2})
        kept = [BoxMasks(config.data.image_size, each.drop, each.grid).kept for each in (mask, further)]
        return further, kept[1] / kept[0]
    assert isinstance(mask, CartesianMaskConfig | VariableDensityMaskConfig)
    return mask.model_copy(update={"acceleration": mask.acceleration + 1}), mask.acceleration / (mask.acceleration + 1)


def rival_loss(kind: str, config: Config) -> Callable[..., Tensor]:
    """The loss of Ambient or SSDU, which sees the network through its own parametrisation; noise counts as image."""
    generator = Generator().manual_seed(config.train.seed)
    rival = make_rival(kind, torch.nn.Identity(), config)
    own = ssdu_loss(HELD_OUT, generator)
    if kind == "ambient":
        masks = make_masks(config.data.mask, config.data.image_size)
        own = ambient_loss(masks, ambient_masks(config)[1], generator)

    def loss(denoiser: PartialDenoiser, measurement: Measurement, t: Tensor, *, noise: Tensor, **of_noisy) -> Tensor:
        rival.network = denoiser.network
        return own(rival, measurement, t, noise=noise)

    return loss


def train(kind: str, config: Config) -> None:
    """Train a network as `msm train` does; the same command again goes on from the newest checkpoint."""
    folder, settings, measured = config.setting.save_dir, config.train, config.setting.dataset_dir
    if measured is None:
        raise SystemExit("no measurements: give setting.dataset_dir=STORE, what `msm acquire` wrote")
    denoiser, store = new_denoiser(config), MeasurementStore(measured)
    loss = make_loss(settings, store.largest_noise_std)
    if kind in ("ambient", "ssdu"):
        loss = rival_loss(kind, config)
        denoiser.record["rival"] = kind
    grid = denoiser.schedule.training_grid(config.diffusion.train_steps, config.diffusion.train_grid)
    trainer = Trainer(denoiser, store, settings, grid=grid, loss=loss)
    cost = folder / "cost.json"
    before = json.loads(cost.read_text())["cpu_seconds"] if cost.exists() else 0
    write_text(folder / "config.yaml", dump_config(config))
    trainer.run(folder)
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
        run: (config of MSM, denoiser, observation, setting) -> images (B, C, H, W).
        trained: name of the run whose network it calls; "" for none.
        calls: network calls an image.
        backward: whether each call is differentiated too, which costs about two calls more.
        grid: settings to choose from.
        kinds: of data that it is for.
    """

    run: Callable[[Config, PartialDenoiser | None, Problem, tuple], Tensor]
    trained: str = ""
    calls: int = CALLS
    backward: bool = False
    grid: tuple[tuple, ...] = ((),)
    kinds: tuple[str, ...] = ("slices", "images")


@dataclass(frozen=True)
class ImageSpace:
    """Where the oracle and Ambient take their steps: white noise in the image, T that sees the whole of it.

    Args:
        shape: of an image (C, H, W); one complex channel for MRI.
        mri: whether the images are complex.
    """

    shape: tuple[int, ...]
    mri: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.shape[-2], self.shape[-1]

    @property
    def transform(self) -> Transform:
        """T of one coil that sees everything, for MRI."""
        return MultiCoil(torch.ones(1, *self.shape, dtype=torch.complex64)) if self.mri else Identity()

    @property
    def masks(self) -> Masks:
        """The family of the one mask that keeps everything."""
        return make_masks(CartesianMaskConfig(acceleration=1), self.size)

    def process(self, seeds: range, grid: Grid = "time") -> ReverseProcess:
        """Levels and noise of a reverse process."""
        of_schedule = PartialDenoiser(torch.nn.Identity(), VPSchedule())
        sampler = Sampler(CALLS, 1, 1.0, covering=False, grid=grid)
        return ReverseProcess(of_schedule, self.shape, seeds, self.transform, self.masks, sampler)


def image_space(seen: Problem) -> ImageSpace:
    return ImageSpace(tuple(seen.input.shape[1:]), seen.y.is_complex())


def oracle_sample(sampler: Callable[..., Tensor], config: Config, denoiser, seen: Problem, setting: tuple):
    """A posterior sample by the oracle and a sampler of `rival_methods`."""
    space = image_space(seen)
    whole = torch.ones(len(seen.y), 1, *space.size, dtype=torch.bool)
    process, physics = space.process(range(len(seen.y))), Physics(seen.operator, seen.transform)
    posterior_mean = image_mean(denoiser, whole, space.transform)
    return sampler(posterior_mean, seen.y, physics, process.start()[0], process, *setting)


def ambient_sample(config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    """A posterior sample by A-DPS: every image has one further-corrupted mask, at all levels."""
    space = image_space(seen)
    mask = make_masks(ambient_masks(config)[0], space.size).sample(len(seen.y), Generator().manual_seed(0))
    process, physics = space.process(range(len(seen.y))), Physics(seen.operator, seen.transform)
    posterior_mean = image_mean(denoiser, mask, seen.transform)
    return dps(posterior_mean, seen.y, physics, process.start()[0], process, *setting)


def msm_samples(number: int, whole: bool, config: Config, denoiser, seen: Problem) -> Tensor:
    """Samples (B, number, C, H, W) by MSM's maximiser, once `best`, with the masks of training, or the whole."""
    space, count = image_space(seen), len(seen.y)
    masks = space.masks if whole else make_masks(config.data.mask, space.size)
    draws = 1 if whole else 3 if space.mri else 2
    sampler, step = Sampler(steps=CALLS // draws, draws=draws), Proximal(20 if space.mri else 6)
    if space.mri:
        sampler = replace(sampler, grid="log", warm_start=1.0)
    samples = []
    for first in range(0, number * count, count):
        seeds = range(first, first + count)
        z = reconstruct(denoiser, seen, seeds=seeds, masks=masks, sampler=sampler, data_step=step)
        samples.append(seen.transform.adjoint(z))
    return torch.stack(samples, 1)


def msm_sample(number: int, whole: bool, config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    """Mean of a number of posterior samples."""
    return msm_samples(number, whole, config, denoiser, seen).mean(1)


def measured_mask(seen: Problem) -> Tensor:
    """Which entries of y were measured (B or 1, 1, H, W)."""
    assert isinstance(seen.operator, Undersampling)
    return seen.operator.mask


def linear(iterations: int, config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    """Phase-constrained SENSE; by 4 iterations it is what all networks of MRI start from."""
    sense, sigma = Bounded(iterations=iterations), torch.full((len(seen.y), 1, 1, 1), setting[0])
    phase, m_0 = sense.linear_estimate(seen.y, measured_mask(seen), sigma, seen.transform)
    return phase * m_0


def ssdu(config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    return ssdu_image(denoiser, seen.y, measured_mask(seen), seen.transform)


def shown(config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    return seen.input


def total_variation(config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    return MRI["TV"].run(seen, setting)


def interpolation(config: Config, denoiser, seen: Problem, setting: tuple) -> Tensor:
    (method,) = fitting(seen).values()
    return method.run(seen, setting)


ZETAS = ((0.3,), (1.0,), (3.0,), (10.0,), (30.0,))
RIDGES = ((0.003,), (0.01,), (0.03,), (0.1,))
PIR = partial(diffpir, noise_std=NOISE_STD)
PIR_GRID = tuple(itertools.product((0.1, 1.0, 10.0), (0.3, 1.0)))
METHODS = {
    "input": Method(shown, calls=0),
    "biharmonic, bicubic": Method(interpolation, calls=0, kinds=("images",)),
    "TV": Method(total_variation, calls=0, grid=MRI["TV"].grid, kinds=("slices",)),
    "linear start": Method(partial(linear, 4), calls=0, grid=RIDGES, kinds=("slices",)),
    "the same, 20 iterations": Method(partial(linear, 20), calls=0, grid=RIDGES, kinds=("slices",)),
    "SSDU": Method(ssdu, "ssdu", 1, kinds=("slices",)),
    "A-DPS": Method(ambient_sample, "ambient", backward=True, grid=ZETAS),
    "A-DPS" + NOISY: Method(ambient_sample, "ambient_noisy", backward=True, grid=ZETAS),
    MSM: Method(partial(msm_sample, 1, False), "msm"),
    MSM + NOISY: Method(partial(msm_sample, 1, False), "msm_noisy"),
    "MSM, mean of 4": Method(partial(msm_sample, 4, False), "msm", calls=4 * CALLS),
    "oracle, DPS": Method(partial(oracle_sample, dps), "oracle", backward=True, grid=ZETAS),
    "oracle, DDNM": Method(partial(oracle_sample, ddnm), "oracle"),
    "oracle, DiffPIR": Method(partial(oracle_sample, PIR), "oracle", grid=PIR_GRID),
    "oracle, MSM's sampler": Method(partial(msm_sample, 1, True), "oracle"),
}


def load(name: str, run: Path) -> tuple[Config, PartialDenoiser]:
    """Config and denoiser of a run of a certain name."""
    config = load_config(run / "config.yaml")
    kind, _, noisy = name.partition("_")
    if config.data.noise_std != (TRAINING_NOISE if noisy else 0):
        raise SystemExit(f"{run}: trained on noise {config.data.noise_std:g}, which a run called {name} is not")
    network = ADMNetwork.load(run / "weights").eval().requires_grad_(False)
    return config, make_rival(kind, network, config)


def posed(name: str, config: Config) -> AnyProblem:
    """An inverse problem of `PROBLEMS`, by name."""
    if config.data.is_mri:
        mask = config.data.mask.model_copy(update={"acceleration": float(name.removeprefix("R = "))})
        return UndersamplingProblem(mask=mask, noise_std=NOISE_STD)
    if name == "box inpainting":
        return BoxProblem(hole=config.data.image_size // 2, noise_std=NOISE_STD)
    return SuperResolutionProblem(factor=4, noise_std=NOISE_STD)


def data_kind(config: Config) -> str:
    """The kind of data by which problems, methods and records are named: prepared fastMRI counts as slices."""
    return "slices" if config.data.is_mri else "images"


def record(path: Path, kind: str, found: dict[str, dict]) -> None:
    """Add to the records of a kind of data; read anew each time, as another run may add too."""
    records = json.loads(path.read_text()) if path.exists() else {}
    own = records.setdefault(kind, {})
    for section, entries in found.items():
        for name, entry in entries.items():
            own.setdefault(section, {}).setdefault(name, {}).update(entry)
    write_text(path, json.dumps(records) + "\n")


def evaluate(folder: Path, runs: dict[str, Path], names: list[str], count: int, records: Path) -> None:
    """Reconstruct by each method and add its scores to the records."""
    config = load_config(runs["msm"] / "config.yaml")
    found = list(itertools.islice(sources(config.data, folder, "test"), count + TUNING))
    items, apart = found[:count], found[count:]
    for name in names:
        method = METHODS[name]
        if data_kind(config) not in method.kinds or (method.trained and method.trained not in runs):
            continue
        denoiser, training = None, {}
        if method.trained:
            _, denoiser = load(method.trained, runs[method.trained])
            training = {method.trained: training_cost(runs[method.trained])}
        run = partial(method.run, config, denoiser)
        for problem in PROBLEMS[data_kind(config)]:
            setting = choose(run, method.grid, apart, posed(problem, config), config)
            seen, started = observe(items, posed(problem, config), config.data), time.process_time()
            x_hat = run(seen, setting)
            seconds = round((time.process_time() - started) / count, 2)
            scores = image_metrics(x_hat, truth(items), convention="plain")
            about = {"trained": method.trained, "calls": method.calls, "backward": method.backward}
            rounded = {key: [round(value, 4) for value in values] for key, values in scores.items()}
            entry = about | {"setting": setting, "cpu_seconds_per_image": seconds} | rounded
            record(records, data_kind(config), {"training": training, "scores": {problem: {name: entry}}})
            print(name, problem, setting, f"{mean(scores['psnr']).value:.2f} dB, {seconds} s", flush=True)


def calibrate(folder: Path, run: Path, count: int, records: Path) -> None:
    """How often the truth lies within samples of MSM on the first problem: in the object for MRI, in the hole else."""
    config, denoiser = load("msm", run)
    problem = PROBLEMS[data_kind(config)][0]
    items = list(itertools.islice(sources(config.data, folder, "test"), count))
    seen, x = observe(items, posed(problem, config), config.data), truth(items)
    samples = msm_samples(SAMPLES, False, config, denoiser, seen)
    mask = measured_mask(seen)
    where = foreground(seen.input) if config.data.is_mri else ~mask.expand(count, -1, -1, -1)
    found = intervals(rank_counts(samples, x, where).sum(0).tolist())
    announced, actual = (torch.tensor(errors) for errors in zip(*spread_and_error(samples, x, where)))
    residuals = residual_ratio(samples[:, 0], seen.y, seen.operator, seen.transform, NOISE_STD, mask)
    entry = {
        "count": count,
        "samples": SAMPLES,
        "coverage": {f"{c.expected:.2f}": round(c.observed, 4) for c in found if round(c.expected, 4) in SHARES},
        "residual": round(sum(residuals) / count, 4),
        "announced_over_actual_error": round((announced.square().sum() / actual.square().sum()).sqrt().item(), 4),
    }
    record(records, data_kind(config), {"calibration": {problem: entry}})
    print(problem, entry, flush=True)


def truth(items: list[Source]) -> Tensor:
    return torch.stack([item.image for item in items])


def choose(run: Callable[..., Tensor], grid: tuple, apart: list[Source], problem: AnyProblem, config: Config) -> tuple:
    """The setting of the highest mean PSNR on images kept apart."""
    if len(grid) == 1:
        return grid[0]
    seen = observe(apart, problem, config.data)
    return tune(partial(run, seen), grid, truth(apart), partial(psnr, convention="plain"))


# Generation


def oracle_images(config: Config, denoiser: PartialDenoiser, space: ImageSpace, transform: Transform, seeds: range):
    """Images of the oracle: one mask, which keeps the whole of one coil that sees everything."""
    sampler = replace(Sampler.preset("best"), steps=CALLS, draws=1)
    whole, transform = space.masks, space.transform
    z = generate(denoiser, space.shape, seeds=seeds, transform=transform, masks=whole, sampler=sampler)
    return transform.adjoint(z)


def msm_images(config: Config, denoiser: PartialDenoiser, space: ImageSpace, transform: Transform, seeds: range):
    """Images of MSM by its preset `best`."""
    masks = make_masks(config.data.mask, space.size)
    shape = transform.maps.shape[1:] if isinstance(transform, MultiCoil) else space.shape
    best = Sampler.preset("best")
    sampler = replace(best, steps=CALLS // best.draws)
    return transform.adjoint(
        generate(denoiser, tuple(shape), seeds=seeds, transform=transform, masks=masks, sampler=sampler)
    )


def ambient_images(config: Config, denoiser: PartialDenoiser, space: ImageSpace, transform: Transform, seeds: range):
    """Images of Ambient diffusion: ancestral steps in image space, each image with one further-corrupted mask."""
    mask = make_masks(ambient_masks(config)[0], space.size).sample(len(seeds), Generator().manual_seed(seeds[0]))
    posterior_mean = image_mean(denoiser, mask, transform)
    process = space.process(seeds, "log")
    x, _ = process.start()
    with torch.no_grad():
        for level, _, noise in process:
            x = ddim(x, posterior_mean(x, level), level, 1.0, noise[:, -1])
    return x


GENERATORS = {"oracle": oracle_images, "msm": msm_images, "ambient": ambient_images}


def generate_all(folder: Path, runs: dict[str, Path], count: int, records: Path) -> None:
    """Generate by each network and add the Fréchet distances from real images to the records.

    These are the test slices of MRI, and the photos of training, as too few are held out.
    """
    config = load_config(next(iter(runs.values())) / "config.yaml")
    items = list(sources(config.data, folder, "test" if config.data.is_mri else "train"))
    space = ImageSpace(tuple(items[0].image.shape), config.data.is_mri)
    real = wavelet_features(magnitude(truth(items)))
    half = len(real) // 2
    apart = distance_record(real[:half], real[half:]) | {"calls": 0}
    record(records, data_kind(config), {"generation": {"half of the real ones": apart}})
    for name, run in runs.items():
        trained_with, denoiser = load(name, run)
        images = []
        for first in range(0, count, GENERATED_AT_ONCE):
            seeds = range(first, min(first + GENERATED_AT_ONCE, count))
            chosen = [items[k % len(items)] for k in seeds]
            transform = MultiCoil(coil_maps(chosen)) if space.mri else Identity()
            make = GENERATORS[name.removesuffix("_noisy")]
            images.append(magnitude(make(trained_with, denoiser, space, transform, seeds)))
        entry = distance_record(wavelet_features(torch.cat(images)), real) | {"calls": CALLS}
        record(records, data_kind(config), {"training": {name: training_cost(run)}, "generation": {name: entry}})
        print(name, entry, flush=True)
        low = 0.0 if config.data.is_mri else -1.0
        shown = make_grid(torch.cat(images)[:SHOWN], SHOWN, normalize=True, value_range=(low, 1.0))
        save_image(shown, picture(records, data_kind(config), name))


def picture(records: Path, kind: str, name: str) -> Path:
    """Where the first generated images of a run are."""
    return records.parent / f"generated_{kind}_{name}.png"


def magnitude(images: Tensor) -> Tensor:
    return images.abs() if images.is_complex() else images


def distance_record(features: Tensor, reference: Tensor) -> dict:
    """FD-wavelet with its interval, and the numbers of images."""
    e = of_sets(wavelet_distance, features, reference)
    return {"fd_wavelet": [e.value, e.low, e.high], "count": len(features), "reference": len(reference)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("kind", choices=["msm", "oracle", "ssdu", "ambient"])
    training.add_argument("config", type=Path)
    training.add_argument("overrides", nargs="*", metavar="key=value")
    evaluation = commands.add_parser("evaluate")
    evaluation.add_argument("folder", type=Path)
    evaluation.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    evaluation.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    evaluation.add_argument("--count", type=int, default=16)
    generation = commands.add_parser("generate")
    generation.add_argument("folder", type=Path)
    generation.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    generation.add_argument("--count", type=int, default=128)
    calibration = commands.add_parser("calibrate")
    calibration.add_argument("folder", type=Path)
    calibration.add_argument("--runs", nargs=1, required=True, metavar="msm=FOLDER")
    calibration.add_argument("--count", type=int, default=4)
    for command in (evaluation, generation, calibration):
        command.add_argument("--records", type=Path, default=RECORDS, help="JSON to add to; pictures go beside it")
    options = parser.parse_args()
    if options.command == "train":
        train(options.kind, load_config(options.config, options.overrides))
    else:
        runs = {name: Path(run) for name, _, run in (given.partition("=") for given in options.runs)}
        if options.command == "generate":
            generate_all(options.folder, runs, options.count, options.records)
        elif options.command == "calibrate":
            calibrate(options.folder, runs["msm"], options.count, options.records)
        else:
            evaluate(options.folder, runs, options.methods, options.count, options.records)


if __name__ == "__main__":
    main()
