"""The training loop: measurements in, a partial denoiser out (SPEC §3).

Progress is counted in images. All randomness of an item follows from (seed, its place in the run), so a run that
was stopped and resumed, or spread over more processes, sees the same numbers.
"""

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from .data.store import Acquisitions
from .denoiser import PartialDenoiser
from .losses import noiseless_loss, noisy_loss, standard_normal
from .masks import Masks
from .measurement import Measurement
from .processes import processes
from .settings import TrainConfig

LOG_EVERY = 50  # steps
Batch = tuple[Tensor, Measurement, dict[str, Tensor]]


class TrainingError(ValueError):
    """Training cannot go on; the message is one line."""


class Trainer:
    """Trains the network of a partial denoiser on acquisitions.

    The run folder gets `weights/` (averaged weights of the newest checkpoint), `checkpoints/`, `log.jsonl` and,
    if tensorboard is installed, `tensorboard/`.

    Args:
        denoiser: the partial denoiser, trained in place; its network has `save(folder)` and `load(folder)`.
        data: the acquisitions.
        masks: p(S) of the data, for random sub-masks.
        folder: run folder.
        settings: `train` block of the config.
        train_steps: number of times of the training grid (SPEC §2).
        on_start: called before the first step, once the checkpoint to go on from is found to fit.
        on_checkpoint: called with the number of images seen, while the network holds the averaged weights.

    Raises:
        ValueError: if the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        denoiser: PartialDenoiser,
        data: Acquisitions,
        masks: Masks,
        folder: Path,
        settings: TrainConfig,
        *,
        train_steps: int = 200,
        on_start: Callable[[], None] | None = None,
        on_checkpoint: Callable[[int], None] | None = None,
    ):
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision, cpu=processes().device.type == "cpu")
        parts = self.accelerator.num_processes * settings.accumulate
        if settings.batch_size % parts:
            raise ValueError(
                f"train.batch_size: {settings.batch_size} cannot be split over {self.accelerator.num_processes} "
                f"processes × train.accumulate {settings.accumulate}; use a multiple of {parts}"
            )
        self.denoiser, self.folder, self.settings = denoiser, Path(folder), settings
        self.data, self.masks, self.on_start, self.on_checkpoint = data, masks, on_start, on_checkpoint
        self.loss: Callable[..., Tensor] = noiseless_loss
        self.grid = denoiser.schedule.grid(train_steps)
        self.total_steps = math.ceil(settings.images / settings.batch_size)
        self.network: Any = denoiser.network  # unwrapped: what is saved and averaged
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        denoiser.to(self.accelerator.device)
        target = copy.deepcopy(denoiser) if settings.target_average else None
        denoiser.network, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.ema: Any = EMAModel(self.network.parameters(), decay=settings.ema_decay, use_ema_warmup=True, power=3 / 4)
        self.step = 0
        if data.largest_noise_std > 0:
            self.loss = partial(
                noisy_loss,
                sure_weight=settings.sure_weight,
                sure_tau=settings.sure_tau,
                sure_share=settings.sure_share,
                target_steps=settings.target_steps,
                target_denoiser=target and self._follow_average(target),
            )

    def run(self) -> None:
        """Train until `settings.images` images are seen, going on from the newest usable checkpoint.

        Raises:
            TrainingError: if the loss is not finite; the last checkpoint stays.
        """
        self._resume()
        if self.on_start is not None and self.accelerator.is_main_process:
            self.on_start()
        if self.step == self.total_steps:
            return
        log = _Log(self.folder, self.step, self.accelerator.is_main_process)
        every = max(1, self.settings.checkpoint_images // self.settings.batch_size)
        sums, counted, started = torch.zeros(2, device=self.accelerator.device), 0, time.perf_counter()
        self.denoiser.train()
        visible = self.accelerator.is_main_process
        with closing(log), _progress(self.settings.images, visible) as progress:
            bar = progress.add_task("training", total=self.settings.images, loss=math.nan)
            for batch in self._loader():
                sums += self._optimise(batch)
                self.step, counted = self.step + 1, counted + 1
                seen = min(self.step * self.settings.batch_size, self.settings.images)
                done = self.step == self.total_steps
                checkpoint = done or self.step % every == 0
                progress.update(bar, completed=seen)
                if checkpoint or self.step % LOG_EVERY == 0:
                    loss, norm = (sums / counted).tolist()
                    self._check_finite(loss)
                    seconds = (time.perf_counter() - started) / counted
                    progress.update(bar, loss=loss)
                    if self.step % LOG_EVERY == 0 or done:
                        log.write(self.step, seen, loss, norm, self._learning_rate(self.step - 1), seconds)
                        sums.zero_()
                        counted, started = 0, time.perf_counter()
                if checkpoint:
                    self._checkpoint(seen)

    def _optimise(self, batch: Batch) -> Tensor:
        """One optimiser step on this process's share of a batch; returns (loss, gradient norm)."""
        settings, accelerator = self.settings, self.accelerator
        times, acquired, white = batch
        t, measurement = times.to(accelerator.device), acquired.to(accelerator.device)
        noises = {name: noise.to(accelerator.device) for name, noise in white.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        total = torch.zeros((), device=accelerator.device)
        for rows in torch.arange(len(t)).chunk(settings.accumulate):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            draws = {name: noise[part] for name, noise in noises.items()}
            loss = self.loss(self.denoiser, measurement[part], t[part], **draws).mean()
            accelerator.backward(loss / settings.accumulate)
            total += loss.detach() / settings.accumulate
        norm = accelerator.clip_grad_norm_(self.network.parameters(), settings.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        return torch.stack([accelerator.reduce(total, "mean"), norm])

    def _follow_average(self, denoiser: PartialDenoiser) -> PartialDenoiser:
        """Tie the weights of a second denoiser to the running average."""
        for parameter, average in zip(denoiser.network.parameters(), self.ema.shadow_params):
            parameter.data = average
        denoiser.requires_grad_(False).network = self.accelerator.prepare_model(denoiser.network, evaluation_mode=True)
        return denoiser

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant or half a cosine down to zero."""
        settings = self.settings
        rate = settings.lr
        if settings.warmup_images:
            rate *= min(1.0, (step + 1) * settings.batch_size / settings.warmup_images)
        if settings.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return rate

    def _loader(self) -> DataLoader:
        """This process's part of every remaining batch."""
        accelerator, settings = self.accelerator, self.settings
        items = TrainingItems(self.data, self.masks, self.grid.cpu(), settings)
        share = settings.batch_size // accelerator.num_processes
        first = accelerator.process_index * share
        return DataLoader(
            items,
            batch_size=None,
            sampler=_Places(range(self.step, self.total_steps), settings.batch_size, first, share),
            num_workers=settings.workers,
        )

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.folder}: the loss became {loss} before step {self.step}; the last checkpoint is kept. "
                "Lower train.lr and start the same command again"
            )

    def _checkpoint(self, seen: int) -> None:
        """Write weights, averaged weights and optimiser state as one folder, then drop the oldest ones."""
        self.accelerator.wait_for_everyone()
        self.ema.store(self.network.parameters())
        if self.accelerator.is_main_process:
            target = self.folder / "checkpoints" / f"{self.step:09d}"
            temporary = target.with_name(target.name + ".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            self.network.save(temporary / "network")
            torch.save(self.optimizer.state_dict(), temporary / "optimizer.pt")
            self.ema.copy_to(self.network.parameters())
            self.network.save(temporary / "average")
            (temporary / "state.json").write_text(json.dumps({"step": self.step, "images": seen}))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
            self.network.save(self.folder / "weights")
            for old in self._checkpoints()[: -self.settings.keep_checkpoints]:
                shutil.rmtree(old)
            if self.on_checkpoint is not None:
                self.denoiser.eval()
                self.on_checkpoint(seen)
                self.denoiser.train()
        self.ema.restore(self.network.parameters())
        self.accelerator.wait_for_everyone()

    def _checkpoints(self) -> list[Path]:
        return sorted(p for p in (self.folder / "checkpoints").glob("*") if p.name.isdigit())

    def _resume(self) -> None:
        """Take up the newest checkpoint that is whole; a damaged one is named and the one before used."""
        for folder in reversed(self._checkpoints()):
            try:
                average = type(self.network).load(folder / "average")
                network = type(self.network).load(folder / "network")
                optimizer = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
                step = json.loads((folder / "state.json").read_text())["step"]
            except Exception as error:  # whatever a damaged file makes its reader raise
                reason = str(error).splitlines()[0]
                self.accelerator.print(f"{folder}: damaged ({reason}); trying the checkpoint before it")
                continue
            if network.settings != self.network.settings:
                raise ValueError(
                    f"{folder}: holds a network of other settings than the config's `network` block; "
                    "use another setting.save_dir, or the config that the run was started with"
                )
            self.network.load_state_dict(network.state_dict())
            self.optimizer.load_state_dict(optimizer)
            for shadow, parameter in zip(self.ema.shadow_params, average.parameters()):
                shadow.copy_(parameter.detach())
            self.ema.optimization_step = self.step = step
            self.accelerator.print(f"resuming from {folder}")
            return


class TrainingItems(Dataset):
    """Batches as the optimiser takes them: times, acquisitions, white noise by the names of the loss's arguments.

    Times are stratified over a batch: each item's time is uniform on the grid, and together they spread over it.
    A share of items is restricted to a random sub-mask; flips are of the whole acquisition, so no entry is used
    that was not measured.

    Args:
        data: the acquisitions.
        masks: p(S), for sub-masks.
        grid: training times (steps,).
        settings: `train` block of the config.
    """

    def __init__(self, data: Acquisitions, masks: Masks, grid: Tensor, settings: TrainConfig):
        self.data, self.masks, self.grid, self.settings = data, masks, grid, settings
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __getitem__(self, place: tuple[int, range]) -> Batch:
        """The items of one step.

        Args:
            place: number of the step, and which items of its batch.

        Returns:
            times (B,), measurement of B items, noises shaped like its values: "noise" and, if the data hold
            noise, "probe".
        """
        step, rows = place
        size, seed = self.settings.batch_size, self.settings.seed
        places = [step * size + row for row in rows]
        epochs = [n // len(self.data) for n in places]
        measurement = self.data.batch([self._index(n) for n in places], epochs)
        streams = [_stream(seed, 1, n) for n in places]
        measurement = self._submask(measurement, streams)
        if self.settings.augment:
            turn = torch.stack([torch.rand(2, generator=g) for g in streams]) < 0.5
            turn[:, 0] &= measurement.maps is not None  # photos have an up and a down
            measurement = flip(measurement, turn)
        names = ("noise", "probe") if self.data.largest_noise_std > 0 else ("noise",)
        noises = {
            name: torch.stack([standard_normal(v, g) for v, g in zip(measurement.values, streams)]) for name in names
        }
        return self._times(step)[list(rows)], measurement, noises

    def _index(self, place: int) -> int:
        """Which acquisition comes at a place of the run: every epoch is a permutation of its own."""
        epoch, position = divmod(place, len(self.data))
        if self._order[0] != epoch:
            self._order = (
                epoch,
                torch.randperm(len(self.data), generator=_stream(self.settings.seed, 2, epoch)),
            )
        return int(self._order[1][position])

    def _times(self, step: int) -> Tensor:
        size, generator = self.settings.batch_size, _stream(self.settings.seed, 3, step)
        u = (torch.rand((), generator=generator) + torch.randperm(size, generator=generator) / size) % 1
        return self.grid[(u * len(self.grid)).long().clamp(max=len(self.grid) - 1)]

    def _submask(self, measurement: Measurement, streams: list[Generator]) -> Measurement:
        share, (low, high) = self.settings.submask_share, self.settings.submask_keep
        if share == 0:
            return measurement
        masks = []
        for mask, stream in zip(measurement.mask.split(1), streams):
            chosen, place = torch.rand(2, generator=stream).unbind()
            keep = low + (high - low) * place
            masks.append(self.masks.submask(mask, keep[None], stream) if chosen < share else mask)
        return measurement.restrict(torch.cat(masks))


class _Places:
    """Which items of which steps a process loads."""

    def __init__(self, steps: range, batch_size: int, first: int, share: int):
        self.steps, self.rows = steps, range(first, first + share)

    def __iter__(self) -> Iterator[tuple[int, range]]:
        return ((step, self.rows) for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


class _Log:
    """log.jsonl and tensorboard; lines past the step that is resumed from are dropped."""

    def __init__(self, folder: Path, step: int, active: bool):
        self.active = active
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, path)
        self.file = path.open("a", buffering=1)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, images: int, loss: float, norm: float, lr: float, seconds: float) -> None:
        if not self.active:
            return
        record = {"loss": loss, "grad_norm": norm, "lr": lr, "seconds_per_step": seconds}
        self.file.write(json.dumps({"step": step, "images": images, **record}) + "\n")
        if self.board is not None:
            for name, value in record.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        if self.active:
            self.file.close()
            if self.board is not None:
                self.board.close()


def flip(measurement: Measurement, turn: Tensor) -> Measurement:
    """Mirror whole acquisitions: of k-space, mask and maps together, or of pixels and mask.

    A mirrored image has mirrored k-space; for an even number of samples the centre stays in place if the
    mirrored axis is moved on by one.

    Args:
        measurement: B acquisitions.
        turn: whether to mirror (vertically, horizontally), (B, 2), bool.
    """
    fields = [measurement.values, measurement.mask]
    is_mri = measurement.maps is not None
    if measurement.maps is not None:
        fields.append(measurement.maps.expand(len(turn), -1, -1, -1))
    for axis in (2, 3):
        here = turn[:, axis - 2, None, None, None]
        move = 1 if is_mri and fields[0].shape[axis] % 2 == 0 else 0
        fields = [torch.where(here, field.flip(axis).roll(move, axis), field) for field in fields]
    values, mask, *maps = fields
    return Measurement(values, mask, maps[0] if maps else None, measurement.noise_std)


def _stream(seed: int, purpose: int, place: int) -> Generator:
    """Random stream of one item or step of a run."""
    return Generator().manual_seed((seed * 4 + purpose) * 2**40 + place)


def _progress(total: int, visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images · loss {task.fields[loss]:.4f} ·"),
        TimeRemainingColumn(),
        disable=not visible,
    )
