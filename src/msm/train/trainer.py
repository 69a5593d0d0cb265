"""The training loop: measurements in, a partial denoiser out, progress counted in images (SPEC §3)."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from ..config.identity import check, training
from ..config.trained import TrainConfig
from ..data.store import Acquisitions
from ..denoiser import PartialDenoiser
from ..errors import ConfigError, TrainingError, is_damage
from ..losses import noiseless_loss
from ..network import StoredNetwork
from ..system.console import progress, say, warn
from ..system.memory import out_of_memory
from ..system.packed import refuse_packed
from ..system.processes import cost_of, processes, usable
from ..system.signals import Stop, Stopped, deaf, stop_asked
from .batches import Batch, TrainingItems, held_out, validation_count
from .checkpoints import Checkpoints, save_optimizer
from .log import Log

LOG_EVERY = 50  # steps
ASK_EVERY = 10  # steps after which several processes agree on whether to stop
ELSEWHERE = "use another setting.save_dir, or the config that the run was started with"

Loss = Callable[..., Tensor]  # (denoiser, measurement, t, noise=…, …) -> (B,)


class Trainer:
    """Trains the network of a partial denoiser on acquisitions.

    The run folder gets `weights/` (averaged weights of the newest checkpoint), `checkpoints/`, `log.jsonl` and,
    if tensorboard is installed, `tensorboard/`.

    Args:
        denoiser: the partial denoiser, trained in place, with the mask law of the data.
        data: the acquisitions.
        settings: `train` block of the config.
        grid: times to train on (steps,), all alike; None: the published 200.
        loss: (denoiser, measurement, t, noise=…) -> (B,), as `noiseless_loss`; for data with noise it is also given
            probe, sure_weight and, with train.target_average, target_denoiser, as `noisy_loss` takes them.
        identity: what else a checkpoint must have in common with the run that goes on from it, by name, as JSON has
            it; the network and the settings outside `TRAINING_MAY_CHANGE` are.
        on_start: called before the first step, once the checkpoint to go on from is found to fit.
        on_checkpoint: called with the number of images seen, while the network holds the averaged weights; what it
            returns, if anything, are pictures (B, 1 or 3, H, W) in [0, 1] for tensorboard. A request to stop ends it.

    Raises:
        ConfigError: if the batch cannot be shared out evenly, or train.validation_share leaves nothing to train on.
        ValueError: if the denoiser has no mask law or a network that cannot be written, or the loss does not know of
            the noise that the data hold.
    """

    def __init__(
        self,
        denoiser: PartialDenoiser,
        data: Acquisitions,
        settings: TrainConfig,
        *,
        grid: Tensor | None = None,
        loss: Loss = noiseless_loss,
        identity: Mapping[str, object] | None = None,
        on_start: Callable[[], None] | None = None,
        on_checkpoint: Callable[[int], Tensor | None] | None = None,
    ):
        denoiser.described()  # what cannot be written is found before it is trained
        assert isinstance(denoiser.network, StoredNetwork)
        if denoiser.masks is None:
            raise ValueError("to train, a denoiser needs the mask law of the data: PartialDenoiser(…, masks=…)")
        if loss is noiseless_loss and data.largest_noise_std > 0:
            raise ValueError(f"the data hold noise, up to {data.largest_noise_std:.3g}: train by noisy_loss")
        self.accelerator = Accelerator(
            mixed_precision=usable(settings.mixed_precision), cpu=processes().device.type == "cpu"
        )
        parts = self.accelerator.num_processes * settings.accumulate
        if settings.batch_size % parts:
            raise ConfigError(
                f"train.batch_size: {settings.batch_size} cannot be split over {self.accelerator.num_processes} "
                f"processes × train.accumulate {settings.accumulate}; use a multiple of {parts}"
            )
        self.held_out = validation_count(settings, len(data))
        if self.held_out >= len(data):
            share = f"found {settings.validation_share}; of {len(data)} acquisitions that leaves none to train on"
            raise ConfigError(f"train.validation_share: {share}; use a smaller one")
        self.denoiser, self.data, self.masks, self.settings, self.loss = denoiser, data, denoiser.masks, settings, loss
        self.network = denoiser.network  # unwrapped: what is saved and averaged
        network = {f"network.{name}": value for name, value in self.network.settings.items()}
        self.identity = {**training(settings), **network, **(identity or {})}
        self.on_start, self.on_checkpoint = on_start, on_checkpoint
        self.grid = denoiser.schedule.training_grid(200) if grid is None else grid
        self.total_steps = math.ceil(settings.images / settings.batch_size)
        weights, decay = self.network.parameters(), settings.weight_decay
        optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=decay, fused=True)
        denoiser.to(self.accelerator.device)
        target = copy.deepcopy(denoiser) if settings.target_average and data.largest_noise_std > 0 else None
        denoiser.network, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.ema = EMAModel(self.network.parameters(), decay=settings.ema_decay, use_ema_warmup=True, power=3 / 4)
        if target is not None:
            for parameter, average in zip(target.network.parameters(), self.ema.shadow_params):
                parameter.data = average
            target.requires_grad_(False).network = self.accelerator.prepare_model(target.network, evaluation_mode=True)
            self.loss = partial(loss, target_denoiser=target)
        self.step = 0

    def run(self, folder: Path | str) -> bool:
        """Train until `settings.images` images are seen, going on from the newest usable checkpoint.

        SIGTERM, or Ctrl-C, ends the run after the step at hand, with a checkpoint of it. A run that has seen as many
        images already is left as it is.

        Args:
            folder: run folder.

        Returns:
            whether training is complete; False if it was stopped.

        Raises:
            ConfigError: if the checkpoint is of another run.
            TrainingError: if the loss is not finite, memory or disk do not suffice, or all checkpoints are damaged;
                what checkpoints there are stay.
        """
        self.folder = Path(folder)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.settings.keep_checkpoints)
        self._resume()
        if self.step >= self.total_steps:
            seen, wanted = self.step * self.settings.batch_size, self.settings.images
            say(f"{self.folder}: complete: it has seen {seen} images, the config asks for {wanted}")
            return True
        if self.on_start is not None and self.accelerator.is_main_process:
            with _writing(self.folder):
                self.on_start()
        self._train()
        return self.step == self.total_steps

    def _train(self) -> None:
        with _writing(self.folder):
            log = Log(self.folder, self.step, self.accelerator.is_main_process)
        every = max(1, self.settings.checkpoint_images // self.settings.batch_size)
        sums, counted, started = torch.zeros(2, device=self.accelerator.device), 0, time.perf_counter()
        self.denoiser.train()
        images, shown = self.settings.images, "–"
        seen = min(self.step * self.settings.batch_size, images)
        bar = progress("training", images, begun=seen, cost=cost_of(self.settings.batch_size))
        with closing(log), bar as advance, stop_asked() as stop:
            for batch in self._loader():
                with _within_memory(self.settings):
                    sums += self._optimise(batch)
                self.step, counted = self.step + 1, counted + 1
                before, seen = seen, min(self.step * self.settings.batch_size, images)
                done, stopping = self.step == self.total_steps, self._agreed(stop.asked)
                checkpoint = done or stopping or self.step % every == 0
                if checkpoint or self.step % LOG_EVERY == 0:
                    loss, norm = (sums / counted).tolist()
                    self._check_finite(loss, norm)
                    seconds = (time.perf_counter() - started) / counted
                    shown = f"{loss:.4f}"
                    if self.step % LOG_EVERY == 0 or done:
                        with _writing(self.folder):
                            record = {"loss": loss, "grad_norm": norm, "lr": self._learning_rate(self.step - 1)}
                            log.write(self.step, seen, **record, seconds_per_step=seconds)
                        sums.zero_()
                        counted, started = 0, time.perf_counter()
                advance(seen - before, f"{seen}/{images} images · loss {shown}")
                if checkpoint:
                    with _writing(self.folder):
                        self._checkpoint(seen, log, stop)
                if stopping or (self.accelerator.num_processes == 1 and stop.asked):
                    return

    def _agreed(self, asked: bool) -> bool:
        """Whether any process was asked to stop: all must stop after the same step."""
        if self.accelerator.num_processes == 1:
            return asked
        if self.step % ASK_EVERY:
            return False
        return bool(self.accelerator.reduce(torch.tensor(float(asked), device=self.accelerator.device), "sum"))

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
            is_last = part.stop == len(t)  # only here do processes exchange gradients: those of all parts
            with nullcontext() if is_last else accelerator.no_sync(self.denoiser.network):
                loss = self.loss(self.denoiser, measurement[part], t[part], **draws).mean()
                accelerator.backward(loss / settings.accumulate)
            total += loss.detach() / settings.accumulate
        norm = accelerator.clip_grad_norm_(self.network.parameters(), settings.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        return torch.stack([accelerator.reduce(total, "mean"), norm])

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant or half a cosine down to zero."""
        settings, rate = self.settings, self.settings.lr
        if settings.warmup_images:
            rate *= min(1.0, (step + 1) * settings.batch_size / settings.warmup_images)
        if settings.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return rate

    def _loader(self) -> DataLoader[Batch]:
        """This process's part of every remaining batch."""
        accelerator, settings = self.accelerator, self.settings
        items = TrainingItems(self.data, self.masks, self.grid.cpu(), settings, len(self.data) - self.held_out)
        share = settings.batch_size // accelerator.num_processes
        rows = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
        steps, on_gpu = zip(range(self.step, self.total_steps), repeat(rows)), accelerator.device.type == "cuda"
        workers: dict[str, Any] = {"num_workers": settings.workers, "worker_init_fn": deaf}
        return DataLoader(items, batch_size=None, sampler=steps, pin_memory=on_gpu, **workers)

    def _check_finite(self, loss: float, norm: float) -> None:
        """Refuse a step that has no finite loss, or no finite gradient: it would spoil the weights."""
        scaled = self.accelerator.scaler is not None  # fp16: steps whose gradient is not finite are left out
        for name, value in (("loss", loss), ("gradient", 0.0 if scaled else norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.folder}: the {name} became {value} before step {self.step}; the last checkpoint is kept. "
                    "Lower train.lr and start the same command again"
                )

    def _checkpoint(self, seen: int, log: Log, stop: Stop) -> None:
        """Write weights, averaged weights and optimiser state as one folder; then look at the averaged weights."""
        self.accelerator.wait_for_everyone()
        self.ema.store(self.network.parameters())
        if self.accelerator.is_main_process:
            d = self.denoiser  # its network may be wrapped for several processes
            averaged = PartialDenoiser(
                self.network, d.schedule, d.parametrisation, d.masks, prior=d.prior, record=d.record
            )

            def fill(folder: Path) -> dict[str, object]:
                self.network.write(folder / "network")
                save_optimizer(self.optimizer.state_dict(), folder / "optimizer.pt")
                self.ema.copy_to(self.network.parameters())
                self.network.write(folder / "average")
                averaged.save(self.folder / "weights")  # first: a run killed now trains up to here again
                scaler = self.accelerator.scaler
                return {"images": seen, "identity": self.identity, "scaler": scaler and scaler.state_dict()}

            self.checkpoints.write(self.step, fill)
            self.denoiser.eval()
            with suppress(Stopped), stop.at_once():
                if self.held_out:
                    log.write(self.step, seen, validation_loss=self._validation_loss(averaged))
                if self.on_checkpoint is not None and (pictures := self.on_checkpoint(seen)) is not None:
                    log.show(self.step, pictures)
            self.denoiser.train()
        self.ema.restore(self.network.parameters())
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _validation_loss(self, averaged: PartialDenoiser) -> float:
        """Mean loss of the averaged weights on measurements that are held out."""
        losses, device = [], self.accelerator.device
        for times, acquired, white in held_out(self.data, self.held_out, self.grid.cpu(), self.settings):
            noises = {name: noise.to(device) for name, noise in white.items()}
            losses.append(self.loss(averaged, acquired.to(device), times.to(device), **noises))
        return torch.cat(losses).mean().item()

    def _resume(self) -> None:
        """Take up the newest checkpoint that is whole; a damaged one is named and the one before used."""
        found = self.checkpoints.newest_first()
        for folder in found:
            try:
                state = self.checkpoints.read_state(folder)
                check(state.get("identity", {}), self.identity, f"{folder}: holds a run", ELSEWHERE)
                average, weights = self.network.read(folder / "average"), self.network.read(folder / "network")
                refuse_packed(folder / "optimizer.pt", "optimizer.pt")
                optimizer = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
            except ConfigError:
                raise
            except Exception as error:  # whatever a damaged file makes its reader raise
                if not is_damage(error) or out_of_memory(error):
                    raise
                reason = " ".join(str(error).split()).removeprefix(f"{folder}/")
                warn(f"{folder}: damaged ({reason}); trying the checkpoint before it")
                continue
            self.network.fill(weights)
            self.optimizer.load_state_dict(optimizer)
            for group in self.optimizer.param_groups:
                group["weight_decay"] = self.settings.weight_decay  # it may have changed, as lr, which each step sets
            for shadow, (name, _) in zip(self.ema.shadow_params, self.network.inner.named_parameters()):
                shadow.copy_(average[name])
            if self.accelerator.scaler is not None and state.get("scaler"):
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.ema.optimization_step = self.step = state["step"]
            say(f"resuming from {folder}")
            return
        if found:
            raise TrainingError(
                f"{self.checkpoints.folder}: all {len(found)} checkpoints are damaged; restore one from a copy, "
                "or delete the folder to train anew"
            )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tell of a full disk in one line."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be written to ({error.strerror or error}); the last checkpoint is kept. "
            "Make room and start the same command again"
        ) from error


@contextmanager
def _within_memory(settings: TrainConfig) -> Iterator[None]:
    """Tell in one line what to do if memory does not suffice for a step."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"memory does not suffice for a batch of {settings.batch_size} in {settings.accumulate} parts; set "
            f"train.accumulate to a larger divisor of {settings.batch_size}, which changes results by rounding only, "
            "or train.mixed_precision, and start the same command again"
        ) from error
