"""What `msm refine` does: rounds of expectation-maximisation from a trained model and its measurements (SPEC §14).

    E-step   a posterior sample of every acquisition, drawn with the model as it is
    M-step   the network goes on, on these samples as full measurements without noise
    standing how well the model predicts what is hidden of acquisitions that it is not trained on, and how far what it
             generates is from acquisitions; a round that makes it worse is not taken

round_1/ and so on hold what a round made: samples.npy until it is judged, weights/, log.jsonl, standing.json and
generated.png. The weights of the best round are in weights/.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..config.build import make_loss
from ..config.identity import training
from ..config.load import Config
from ..config.trained import TrainConfig
from ..data.store import Acquisitions, MeasurementStore
from ..data_step import DataStep, preset_data_step
from ..denoiser import PartialDenoiser
from ..errors import ConfigError, DataError
from ..evaluate.rounds import GENERATED, PREDICTED, SAMPLES, Standing, predict, proximal_distance
from ..masks import FullMask, Masks
from ..output.figures import write_picture
from ..output.run_folder import CHECKPOINTS, IMAGES, ROUND, check_folder, record_run, versions
from ..sample.complete import complete
from ..sample.kept_batches import Parts
from ..sampling import Sampler
from ..system.console import note, progress, say, warn
from ..system.files import fingerprint, whole_folder
from ..system.lock import alone
from ..system.manifest import read_json, write_listed
from ..system.places import WEIGHTS
from ..system.processes import arithmetic, cost_of, processes
from ..train.batches import validation_count
from ..train.completed import Completed
from ..train.trainer import Trainer
from .calibrate import measured_on
from .inputs import training_data
from .weights import trained_denoiser

COMPLETED, STANDING, GENERATED_PICTURE = "samples.npy", "standing.json", "generated.png"  # of a round's folder
WARMUP = 0.05  # of a round's images
FULL_STEPS = 20  # of a model of full measurements: a single sample of three times as many is hardly better


def run_refinement(config: Config, config_file: Path) -> bool:
    """Refine the weights in setting.pretrained_model_dir, into the run folder.

    Returns:
        whether all rounds are done; False if the run was stopped.
    """
    check_folder(config.setting.save_dir, IMAGES, CHECKPOINTS)
    with alone(config.setting.save_dir, folder=True):
        return _refine(config, config_file)


def _refine(config: Config, config_file: Path) -> bool:
    folder, settings = config.setting.save_dir, config.refine
    denoiser = trained_denoiser(config, config_file, drawing=True)
    with processes().main_process_first():
        store, data = training_data(config, folder, denoiser.divisor)
    trained, held_out = split(len(data), config)
    best = config.setting.pretrained_model_dir
    assert best is not None  # else `trained_denoiser` refuses
    run = _Run(config, config_file, store, data, trained, held_out, _identity(config, store, denoiser))
    run.check()
    _say_what_comes(config, store)
    if processes().is_main_process:
        record_run(config, folder)
    before = run.standing(0, best)
    for number in range(1, settings.rounds + 1):
        if not run.round(number, best):
            say(f"{folder}: stopped in round {number}; the same command goes on from there")
            return False
        now = run.standing(number, run.place(number) / WEIGHTS)
        if worse := now.worse_than(before):
            warn(f"{folder}: round {number} is not taken, {worse}; the weights are those of the round before")
            break
        best, before = run.place(number) / WEIGHTS, now
        if processes().is_main_process:
            with whole_folder(folder / WEIGHTS) as temporary:
                for file in best.iterdir():
                    shutil.copy(file, temporary)
    if not (folder / WEIGHTS).is_dir():
        raise DataError(f"{folder}: no round made the model better; keep {best}")
    say(f"{folder / WEIGHTS}: the weights of the best round, which take full measurements: one mask a step")
    return True


def split(count: int, config: Config) -> tuple[list[int], list[int]]:
    """Numbers of the acquisitions that are trained on, and of those held out.

    The latter are those that the training before kept out too; if it kept none, some that are evenly spaced.

    Raises:
        ConfigError: if one of the two would be too few.
    """
    known, share = validation_count(config.train, count), config.refine.validation_share
    number = known or math.ceil(share * count)
    if number < 2 or number >= count:
        field, found = ("train", config.train.validation_share) if known else ("refine", share)
        said = f"found {found}; of {count} acquisitions {number} are held out; two at least, and not all"
        raise ConfigError(f"{field}.validation_share: {said}")
    if known:
        return list(range(count - known)), list(range(count - known, count))
    kept = "a training with train.validation_share keeps some out from the beginning"
    note(f"the model to begin with was trained on what rounds are judged by, which favours it; {kept}")
    held_out = {(2 * n + 1) * count // (2 * number) for n in range(number)}
    return [n for n in range(count) if n not in held_out], sorted(held_out)


def completing(masks: Masks, steps: int | None, *, mri: bool) -> Sampler:
    """The sampler that completes acquisitions: preset best, in `refine.steps`; of full measurements, one mask a step.

    The latter in as many network calls; without a number of steps in `FULL_STEPS`.
    """
    sampler = Sampler.preset("best", mri=mri, inverse_problem=True)
    if steps is not None:
        return replace(sampler, steps=steps).fitted(masks)
    return replace(sampler, steps=FULL_STEPS, draws=1) if isinstance(masks, FullMask) else sampler


@dataclass(frozen=True)
class _Run:
    """The steps of a round, each of which is done once: the next run of the command takes up what there is."""

    config: Config
    config_file: Path
    store: MeasurementStore
    data: Acquisitions
    trained: Sequence[int]
    held_out: Sequence[int]
    identity: str

    def check(self) -> None:
        """Refuse a folder of another refinement, before anything is written into it."""
        if (self.place(0) / STANDING).is_file():
            _read_standing(self.place(0) / STANDING, self.identity)

    def place(self, number: int) -> Path:
        """The folder of a round."""
        return self.config.setting.save_dir / f"{ROUND}{number}"

    def round(self, number: int, weights: Path) -> bool:
        """E-step and M-step from weights; False if it was stopped."""
        place, settings = self.place(number), self.config.refine
        if (place / STANDING).is_file():
            return True
        samples = place / COMPLETED
        if not samples.is_file():
            self._complete(number, weights)
        of_round = _m_step(self.config, number)
        completed = Completed(self.data, samples, self.trained, settings.measured_share, of_round.seed)
        denoiser = PartialDenoiser.load(weights)
        denoiser.masks, denoiser.measured_error = FullMask(self.store.shape[1:]), None
        source = str(self.config.setting.pretrained_model_dir)
        denoiser.record |= {"refined": {"from": source, "round": number, **settings.model_dump(mode="json")}}
        trainer = Trainer(
            denoiser,
            completed,
            of_round,
            grid=denoiser.schedule.training_grid(self.config.diffusion.train_steps, self.config.diffusion.train_grid),
            loss=make_loss(of_round, completed.largest_noise_std),
            identity={"refinement": self.identity},
        )
        if not trainer.run(place):
            return False
        if processes().is_main_process:
            averaged = PartialDenoiser.load(place / WEIGHTS)
            if averaged.measured_error is None:
                kept_out = Completed(self.data, samples, self.held_out)
                measured_on(averaged, place / WEIGHTS, kept_out, of_round, range(len(kept_out)))
        processes().wait_for_everyone()
        return True

    def standing(self, number: int, weights: Path) -> Standing:
        """How the model of a round stands; that of round 0 is the one that the run began with."""
        path = self.place(number) / STANDING
        if path.is_file():
            self._clean(number)
            return _read_standing(path, self.identity)
        denoiser, sampler, step = self._model(weights)
        predicted = self.held_out[:: max(1, len(self.held_out) // PREDICTED)][:PREDICTED]
        assert denoiser.masks is not None  # `trained_denoiser` sees to it
        of_images = Sampler.preset("best", mri=self.store.is_mri).fitted(denoiser.masks)
        batch_size, seed = self.config.sample.batch_size, self.config.sample.seed
        total = len(predicted) * SAMPLES * sampler.steps + min(GENERATED, len(self.data)) * of_images.steps
        label, sample = f"judging round {number}" if number else "judging the start", self.config.sample
        with progress(label, total) as advance, arithmetic(sample.mixed_precision):
            errors, dispersion = predict(
                denoiser,
                self.data,
                predicted,
                sampler=sampler,
                data_step=step,
                seed=seed,
                batch_size=batch_size,
                advance=advance,
            )
            distance, images = proximal_distance(
                denoiser,
                self.data,
                sampler=of_images,
                seed=seed,
                batch_size=batch_size,
                advance=advance,
            )
        found = Standing(errors, dispersion, distance)
        if processes().is_main_process:
            write_picture(self.place(number) / GENERATED_PICTURE, images)
            write_listed(path, json.dumps({**asdict(found), "of": self.identity}, indent=1) + "\n")
        processes().wait_for_everyone()
        self._clean(number)
        say(f"{f'round {number}' if number else 'at the start'}: {found.told()}")
        return found

    def _complete(self, number: int, weights: Path) -> None:
        denoiser, sampler, step = self._model(weights)
        settings, sample = self.config.refine, self.config.sample
        total = len(self.data) * settings.samples
        parts = Parts(self.place(number), fingerprint([self.identity, json.dumps(versions())], denoiser.tensors()))
        label = f"round {number}, E-step"
        bar = progress(label, total * sampler.steps, shared=True, cost=cost_of(sample.batch_size))
        with bar as advance, arithmetic(sample.mixed_precision):
            complete(
                denoiser,
                self.data,
                self.place(number) / COMPLETED,
                sampler=sampler,
                data_step=step,
                samples=settings.samples,
                seed=sample.seed + number * total,
                batch_size=sample.batch_size,
                parts=parts,
                advance=advance,
            )

    def _model(self, weights: Path) -> tuple[PartialDenoiser, Sampler, DataStep]:
        """A model, and how posterior samples are drawn with it."""
        setting = self.config.setting.model_copy(update={"pretrained_model_dir": weights})
        config = self.config.model_copy(update={"setting": setting})
        denoiser = trained_denoiser(config, self.config_file, drawing=True)
        assert denoiser.masks is not None  # `trained_denoiser` sees to it
        sampler = completing(denoiser.masks, self.config.refine.steps, mri=self.store.is_mri)
        return denoiser, sampler, preset_data_step("best", mri=self.store.is_mri)

    def _clean(self, number: int) -> None:
        """Remove what only the round itself needed; a run that was cut off right before may have left it."""
        if not processes().is_main_process:
            return
        (self.place(number) / COMPLETED).unlink(missing_ok=True)
        shutil.rmtree(self.place(number) / CHECKPOINTS, ignore_errors=True)


def _m_step(config: Config, number: int) -> TrainConfig:
    """The training of a round."""
    settings, train = config.refine, config.train
    of_round = {
        "images": settings.images,
        "lr": settings.lr or train.lr / 2,
        "warmup_images": round(WARMUP * settings.images),
        "decay": "cosine",
        "submask_share": 0.0,
        "remask": False,
        "validation_share": 0.0,
        "seed": train.seed + number,
    }
    return train.model_copy(update=of_round)


def _identity(config: Config, store: MeasurementStore, start: PartialDenoiser) -> str:
    """What all rounds follow from: settings, measurements, and the weights that the run began with."""
    settings = config.model_dump(mode="json", include={"refine", "diffusion"}, exclude={"refine": {"rounds"}})
    settings["train"] = training(_m_step(config, 0)) | {"noise_std": config.train.noise_std}
    settings["kept out"] = config.train.validation_share
    settings["sample"] = config.sample.model_dump(mode="json", include={"seed", "mixed_precision", "compile"})
    about = [json.dumps(settings, sort_keys=True), json.dumps(store.provenance, sort_keys=True), str(store.shape)]
    return fingerprint([*about, *store.names(range(len(store)))], start.tensors())[:16]


def _say_what_comes(config: Config, store: MeasurementStore) -> None:
    """How much a round draws, and the room that it needs."""
    count = len(store) * config.refine.samples
    values = (2 if store.is_mri else store.shape[0]) * math.prod(store.shape[1:])
    size = 2 * 4 * values * count  # kept batches, and the file that they become
    say(f"a round draws {count} samples of {len(store)} acquisitions: {size / 1e6:.0f} MB on disk, until it is judged")


def _read_standing(path: Path, identity: str) -> Standing:
    found = read_json(path, "a standing", "remove it, and the round is judged again")
    try:
        errors, dispersion = tuple(float(e) for e in found["errors"]), found["dispersion"]
        standing = Standing(errors, None if dispersion is None else float(dispersion), float(found["distance"]))
        of = found["of"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove it, and the round is judged again") from error
    if of != identity:
        other = "is of another refinement: other settings, measurements or weights to begin with"
        raise ConfigError(f"{path}: {other}; use another setting.save_dir, or what it was started with")
    return standing
