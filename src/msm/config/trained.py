"""What is trained, and how: the network, its parametrisation, the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic import model_validator as check

from .block import AUTOMATIC, Block, refuse
from .measured import Size

Precision = Literal["no", "bf16", "fp16"]


class NetworkConfig(Block):
    """The ADM U-Net, by the names of `ADMNetwork`'s arguments."""

    image_size: Size = Field(default=AUTOMATIC, description="null: data.image_size")
    in_channels: int = Field(
        default=AUTOMATIC, ge=1, description="null: 2 for MRI (real, imaginary), otherwise data.channels"
    )
    num_channels: int = Field(default=128, ge=1, le=8192, description="base width, a multiple of num_groups")
    num_res_blocks: int = Field(default=2, ge=1, le=64, description="residual blocks a level")
    channel_mult: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        min_length=1, max_length=9, description="width of each level in units of num_channels, e.g. [1, 1, 2, 3, 4]"
    )
    attention_resolutions: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 16, 8),
        description="sides of the levels with attention; the first level has image_size / patch_size",
    )
    num_head_channels: int = Field(default=64, ge=1, description="channels an attention head")
    num_groups: int = Field(
        default=32, ge=1, description="groups of every GroupNorm; num_channels / 4 where that is below the published 32"
    )
    patch_size: int = Field(
        default=1,
        ge=1,
        description="side in pixels of what the first level sees as one; 2 halves the cost, details suffer",
    )


class DiffusionConfig(Block):
    """What the network predicts, and on which diffusion steps it is trained."""

    parametrisation: Literal["epsilon", "edm", "sense"] = Field(
        default="epsilon",
        description="epsilon: published; edm: the preconditioning of Karras et al. (photos); sense: a regularised "
        "CG-SENSE estimate instead of the adjoint (MRI)",
    )
    train_steps: int = Field(default=200, ge=1, le=1000, description="training grid: so many of 1000 steps")
    train_grid: Literal["time", "cosine"] = Field(
        default="time",
        description="noise levels of training; time: even in t, published; cosine: half of them below 0.3, for short "
        "training: detail is learned there",
    )
    phase_width: float = Field(
        default=2.0, gt=0, description="MRI: detail of the phase taken from the data, in cycles per field of view"
    )
    phase_residual: float = Field(
        default=0.02, gt=0, le=1, description="MRI: share of the power that this phase leaves in the imaginary part"
    )
    sense_iterations: int = Field(
        default=4, ge=1, le=100, description="conjugate-gradient steps of sense and, six at least, of the proximal step"
    )


class TrainConfig(Block):
    """Training; progress is counted in images (the published million steps of batch 2 are 2 000 000)."""

    images: int = Field(default=2_000_000, ge=1, description="training images seen in total")
    batch_size: int = Field(default=2, ge=1, description="images an optimiser step, over all processes")
    accumulate: int = Field(default=1, ge=1, description="parts a batch is split into, one at a time")
    lr: float = Field(default=1e-5, gt=0, lt=1, description="learning rate; published 1e-5, MRI 5e-5")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of AdamW")
    warmup_images: int = Field(default=0, ge=0, description="images over which lr rises from 0")
    decay: Literal["constant", "cosine"] = Field(default="constant", description="lr after the warm-up")
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(default=0.9999, ge=0, lt=1, description="decay of the averaged weights, a step")
    sure_tau: float = Field(
        default=0.005,
        gt=0,
        description="probe size tau of SURE (noise_std > 0); not given: 0.05 in half precision, whose "
        "rounding drowns smaller ones",
    )
    sure_weight: float = Field(default=0.05, ge=0, description="weight lambda of SURE (noise_std > 0)")
    sure_share: float = Field(default=1.0, gt=0, le=1, description="share of a batch that SURE is evaluated on")
    target_steps: int = Field(
        default=0, ge=0, description="targets below noise_std: 0 conditional mean (published), n midpoint ODE steps"
    )
    target_average: bool = Field(default=False, description="targets below noise_std by the averaged weights")
    submask_share: float = Field(default=0.0, ge=0, le=1, description="share of items given a sub-mask")
    submask_keep: tuple[float, float] = Field(
        default=(0.5, 1.0), description="a sub-mask keeps a share in [low, high], with 0 < low <= high <= 1"
    )
    augment: bool = Field(default=False, description="mirror at random: photos left to right, MRI both ways")
    remask: bool = Field(
        default=False,
        description="published behaviour: mask and noise drawn anew from the clean image at every step, so "
        "that over epochs the network sees every pixel and does not train on measurements alone",
    )
    noise_std: Annotated[float, Field(ge=0)] | Literal["stored", "auto", "pooled"] = Field(
        default="stored",
        description="rho that the loss takes; stored: that of the measurements, auto: estimated from each of them, "
        "pooled: one estimate for all, a number: assumed",
    )
    mixed_precision: Precision = Field(default="no", description="arithmetic of the network")
    checkpoint_images: int = Field(default=50_000, ge=1, description="images between two checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints kept")
    validation_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the measurements, the last ones, that is not trained on; their loss is logged at "
        "checkpoints, at the price of 64 network passes, of three times as many with noise",
    )
    pictures: int = Field(
        default=4,
        ge=0,
        description="images drawn at a checkpoint, to look at, by 50 network passes each; at so few of the checkpoints "
        "that they take a tenth of the time at most, and at the last one; 0: none",
    )
    workers: int = Field(default=0, ge=0, description="data loading processes")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the weights, the order and the diffusion noise")

    @check(mode="after")
    def _fits(self) -> TrainConfig:
        low, high = self.submask_keep
        if not 0 < low <= high <= 1:
            raise refuse("submask_keep", f"found [{low}, {high}]; out of range or order")
        if self.batch_size % self.accumulate:
            reason = f"batch_size {self.batch_size} is split into so many parts; use a divisor of it"
            raise refuse("accumulate", f"found {self.accumulate}; {reason}")
        if self.warmup_images > self.images:
            reason = f"train.images is {self.images}; a warm-up ends before training does"
            raise refuse("warmup_images", f"found {self.warmup_images}; {reason}")
        if self.remask and self.noise_std in ("auto", "pooled"):
            reason = "train.remask draws noise of the level data.noise_std; use stored or a number"
            raise refuse("noise_std", f"found '{self.noise_std}'; {reason}")
        if self.mixed_precision != "no" and "sure_tau" not in self.model_fields_set:
            object.__setattr__(self, "sure_tau", 0.05)
        return self
