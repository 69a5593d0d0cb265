"""Settings of a run: frozen pydantic models, one for each block of the YAML file (`msm.config` reads it)."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic import model_validator as check
from pydantic_core import PydanticCustomError

from .presets import Preset, preset

Precision = Literal["no", "bf16", "fp16"]
Size = Annotated[int, Field(ge=8, le=4096, description="side of the square image, in pixels")]


def _refuse(field: str, reason: str) -> PydanticCustomError:
    """An error of a check over several fields, blamed on one of them."""
    return PydanticCustomError("refused", "{field}: {reason}", {"field": field, "reason": reason})


class _Block(BaseModel):
    """What all blocks share: frozen, unknown keys refused, finite numbers, no true/false for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @check(mode="before")
    @classmethod
    def _no_bool(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            values = value if isinstance(value, list | tuple) else [value]
            if field and field.annotation is not bool and any(isinstance(v, bool) for v in values):
                raise _refuse(name, f"found {reprlib.repr(value)}; it should not be true or false")
        return data


class Setting(_Block):
    """Where things are (the published block)."""

    save_dir: Path = Field(description="folder of this run: config, log, checkpoints, images")
    pretrained_model_dir: Path | None = Field(
        default=None, description="weights: a safetensors folder or a published .pt file"
    )
    dataset_dir: Path | None = Field(
        default=None,
        description="a folder, read as data.kind says, or an .h5 store written by msm acquire; for data.kind raw "
        "and msm sample: a raw file, or a folder of them",
    )


class BoxMaskConfig(_Block):
    """Boxes of a coarse grid are dropped (SPEC §7)."""

    kind: Literal["box"] = "box"
    drop: float = Field(default=0.4, ge=0, lt=1, description="share p of the boxes dropped")
    grid: int = Field(default=4, ge=1, description="boxes along each side")


class CartesianMaskConfig(_Block):
    """Columns of k-space are kept (SPEC §7)."""

    kind: Literal["cartesian"] = "cartesian"
    acceleration: float = Field(default=4, ge=1, description="nominal R: one column in R off the centre")
    center: int = Field(default=20, ge=0, description="centre columns always kept")
    pattern: Literal["random", "uniform"] = Field(default="random", description="columns off the centre")


class VariableDensityMaskConfig(_Block):
    """Points of 2-D k-space are kept, denser towards the centre: scans with two phase-encoding axes (SPEC §7)."""

    kind: Literal["variable_density"] = "variable_density"
    acceleration: float = Field(default=8, ge=1, description="nominal R: one point in R off the centre")
    center: int = Field(default=24, ge=0, description="side of the square in the middle that is always kept")
    pattern: Literal["poisson", "random"] = Field(
        default="poisson", description="poisson: points keep apart; random: they do not know of each other"
    )
    corners: bool = Field(default=True, description="whether k-space beyond the inscribed ellipse is measured")

    @check(mode="after")
    def _fits(self) -> VariableDensityMaskConfig:
        if not self.corners and self.acceleration < 1.5:
            raise _refuse("acceleration", f"found {self.acceleration}; at least 1.5 where corners are left out")
        return self


AnyMask = BoxMaskConfig | CartesianMaskConfig | VariableDensityMaskConfig
MaskConfig = Annotated[AnyMask, Field(discriminator="kind")]


class DataConfig(_Block):
    """What the measurements are."""

    kind: Literal["images", "fastmri", "slices", "raw"] = Field(
        description="how dataset_dir is read: photos, fastMRI as the paper's authors prepared it (fastMRI's own files "
        "are `raw`), slices given simulated coils, raw k-space"
    )
    image_size: Size
    channels: Literal[1, 3] = Field(default=3, description="colour channels (images only)")
    coils: int = Field(default=8, ge=1, le=128, description="simulated receive coils (slices only)")
    phase_detail: float = Field(
        default=0.0, ge=0, description="fine structure of the simulated phase, in radians; scanners: 0.4 (slices only)"
    )
    mask: MaskConfig = Field(description="p(S), the random subsampling")
    noise_std: float = Field(default=0.0, ge=0, description="measurement noise rho, per real entry")
    limit: int | None = Field(default=None, ge=1, description="first so many images only; null: all")
    held_out: int = Field(
        1000, ge=0, description="first images of a folder, kept for testing (folders of 100 images or more)"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the masks and noise acquired")

    @property
    def is_mri(self) -> bool:
        """Whether the images are complex and measured in k-space."""
        return self.kind != "images"

    @property
    def network_channels(self) -> int:
        """Real channels the network works on: two for a complex image."""
        return 2 if self.is_mri else self.channels


class NetworkConfig(_Block):
    """The ADM U-Net, by the names of `ADMNetwork`'s arguments."""

    image_size: Size
    in_channels: int = Field(ge=1, description="2 for MRI (real, imaginary), otherwise data.channels")
    num_channels: int = Field(default=128, ge=1, description="base width, a multiple of num_groups")
    num_res_blocks: int = Field(default=2, ge=1, description="residual blocks a level")
    channel_mult: tuple[Annotated[int, Field(ge=1)], ...] = Field(
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

    @check(mode="after")
    def _fits(self) -> NetworkConfig:
        mult, last = self.channel_mult, len(self.channel_mult) - 1
        if self.image_size % self.patch_size:
            raise _refuse("patch_size", f"found {self.patch_size}; use a divisor of image_size {self.image_size}")
        if self.num_channels % self.num_groups:
            reason = f"use a multiple of num_groups {self.num_groups}"
            raise _refuse("num_channels", f"found {self.num_channels}; {reason}")
        side = self.image_size // self.patch_size
        if mult[0] != 1:
            raise _refuse("channel_mult", f"found {list(mult)}; begin with 1")
        if side % 2**last:
            reason = f"a side of {side} cannot be halved {last} times; use fewer levels"
            raise _refuse("channel_mult", f"found {list(mult)}; {reason}")
        widths = {side >> level: self.num_channels * m for level, m in enumerate(mult)}
        for side in self.attention_resolutions:
            if side not in widths:
                reason = f"the levels of channel_mult are at {list(widths)}; use some of these"
                raise _refuse("attention_resolutions", f"found {side}; {reason}")
        for side in (*self.attention_resolutions, min(widths)):  # the lowest level always has attention
            if widths[side] % self.num_head_channels:
                reason = f"use a divisor of the {widths[side]} channels of the level of side {side}"
                raise _refuse("num_head_channels", f"found {self.num_head_channels}; {reason}")
        return self


class DiffusionConfig(_Block):
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


class TrainConfig(_Block):
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
    workers: int = Field(default=0, ge=0, description="data loading processes")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the weights, the order and the diffusion noise")

    @check(mode="after")
    def _fits(self) -> TrainConfig:
        low, high = self.submask_keep
        if not 0 < low <= high <= 1:
            raise _refuse("submask_keep", f"found [{low}, {high}]; out of range or order")
        if self.batch_size % self.accumulate:
            reason = f"batch_size {self.batch_size} is split into so many parts; use a divisor of it"
            raise _refuse("accumulate", f"found {self.accumulate}; {reason}")
        if self.warmup_images > self.images:
            reason = f"train.images is {self.images}; a warm-up ends before training does"
            raise _refuse("warmup_images", f"found {self.warmup_images}; {reason}")
        if self.remask and self.noise_std in ("auto", "pooled"):
            reason = "train.remask draws noise of the level data.noise_std; use stored or a number"
            raise _refuse("noise_std", f"found '{self.noise_std}'; {reason}")
        if self.mixed_precision != "no" and "sure_tau" not in self.model_fields_set:
            object.__setattr__(self, "sure_tau", 0.05)
        return self


class SampleConfig(_Block):
    """The sampler (SPEC §5)."""

    preset: Preset | None = Field(
        default=None,
        description="values for what is not given of steps, draws, eta, masks, score, grid, order, warm_start, "
        "inverse_problem.step_size and .proximal_iterations. paper: as the paper says; published: as the authors' code "
        "is set; best: as measured here, a tenth of their network calls. On the command line it replaces what the file "
        "says of these",
    )
    count: int = Field(default=8, ge=1, description="images to generate, or test images to reconstruct")
    samples: int = Field(
        default=1,
        ge=1,
        description="inverse problems: posterior samples a measurement; not given: 8 for data.kind raw, else 1",
    )
    batch_size: int = Field(
        default=8, ge=1, description="images at a time, halved where memory does not suffice; changes no result"
    )
    steps: int = Field(default=200, ge=1, le=1000, description="reverse diffusion steps")
    draws: int = Field(default=3, ge=1, description="masks w a step")
    eta: float = Field(
        default=1.0, ge=0, le=1, description="fresh noise; not given: 1 to generate, 0.85 for inverse problems"
    )
    masks: Literal["iid", "covering"] = Field(default="covering", description="draw of a step's masks")
    score: Literal["average", "chain"] = Field(
        default="average",
        description="how a step's masks make one estimate; chain takes as many masks as it needs instead of draws, "
        "and a network trained on sub-masks (train.submask_share, train.submask_keep)",
    )
    grid: Literal["time", "log"] = Field(
        default="time",
        description="spacing of the steps; time: even, published; log: even in the logarithm of the noise level, for "
        "few steps",
    )
    order: Literal[1, 2] = Field(
        default=1,
        description="to generate; 2: each step also uses the one before, which few steps need, with grid log",
    )
    warm_start: float | None = Field(
        default=None,
        gt=0.01,
        le=157,
        description="inverse problems: noise level to begin at, with a linear reconstruction instead of noise alone; "
        "biased towards it where its error is not small against this level, 1 for MRI with a measured centre; null: "
        "begin with noise",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the first sample; sample i has seed + i")
    mixed_precision: Precision = Field(
        default="no", description="arithmetic of the network; float32 on a CPU that has no other"
    )
    compile: bool = Field(
        default=False, description="torch.compile the network: minutes at the start, once for each size of a batch"
    )


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "box": ("hole",),
    "random": ("keep",),
    "super_resolution": ("factor",),
    "gaussian_blur": ("blur_sigma",),
    "motion_blur": ("blur_length", "blur_angle"),
    "colorization": (),
    "undersampling": ("mask",),
}


class InverseProblemConfig(_Block):
    """y = H z + e, and the step of the likelihood (SPEC §6). Each operator takes its own parameters only."""

    operator: Literal[
        "box", "random", "super_resolution", "gaussian_blur", "motion_blur", "colorization", "undersampling"
    ] = Field(description="the forward operator H")
    hole: int | None = Field(default=None, ge=1, description="box: side of the square hole, in pixels")
    keep: float | None = Field(default=None, gt=0, lt=1, description="random: share of the pixels kept")
    factor: int | None = Field(default=None, ge=2, description="super_resolution: down-sampling factor")
    blur_sigma: float | None = Field(default=None, gt=0, description="gaussian_blur: width, in pixels")
    blur_length: float | None = Field(default=None, gt=0, description="motion_blur: length, in pixels")
    blur_angle: float | None = Field(default=None, description="motion_blur: direction, in degrees")
    mask: MaskConfig | None = Field(
        default=None,
        description="undersampling: the mask of the measurement; data.kind raw: left out, it is in the file",
    )
    noise_std: float = Field(
        default=0.01, ge=0, description="standard deviation of e; data.kind raw: not used, it is estimated"
    )
    step_size: Annotated[float, Field(gt=0)] | Literal["proximal"] = Field(
        default=1.75,
        description="gamma of the likelihood step; not given: 1.75 for images, 2 for MRI. proximal: weighed by "
        "noise_std against the diffusion noise, and through the coil maps for MRI",
    )
    likelihood_weight: float = Field(
        default=1.0,
        gt=0,
        description="power of p(y|z), for step_size proximal; above 1 trusts the data more, for images unlike those of "
        "the training",
    )
    proximal_iterations: int = Field(
        default=6, ge=1, le=100, description="conjugate-gradient steps of the proximal step and of the warm start"
    )

    @check(mode="after")
    def _parameters(self) -> InverseProblemConfig:
        wanted = _PARAMETERS[self.operator]
        for name in (name for names in _PARAMETERS.values() for name in names):
            given = getattr(self, name) is not None
            if name in wanted and not given and name != "mask":  # raw files have their own: see _check_problem
                raise _refuse(name, f"missing; operator {self.operator} needs it")
            if given and name not in wanted:
                reason = f"remove it: operator {self.operator} takes {' and '.join(wanted) or 'nothing'}"
                raise _refuse(name, f"found {getattr(self, name)!r}; {reason}")
        return self

    def trusted_noise(self, noise_std: float) -> float:
        """The σ_y that the sampler is told: p(y|z)^w is a likelihood of noise σ_y/√w."""
        return noise_std / self.likelihood_weight**0.5


class Config(_Block):
    """All settings of a run. `inverse_problem` is None for training and generation."""

    setting: Setting = Field(description="save_dir, pretrained_model_dir, dataset_dir")
    data: DataConfig = Field(description="kind, image_size, mask and noise of the measurements")
    network: NetworkConfig = Field(description="the ADM U-Net: image_size, in_channels, channel_mult, ...")
    diffusion: DiffusionConfig = Field(default=DiffusionConfig(), description="what the network predicts")
    train: TrainConfig = Field(default=TrainConfig(), description="the training loop")
    sample: SampleConfig = Field(default=SampleConfig(), description="the sampler")
    inverse_problem: InverseProblemConfig | None = Field(default=None, description="null for generation")

    @check(mode="before")
    @classmethod
    def _raw_files_bring_their_operator(cls, blocks: Any) -> Any:
        """The inverse problem of raw files is known but for what a user adds."""
        data = blocks.get("data") if isinstance(blocks, dict) else None
        if not isinstance(data, dict) or data.get("kind") != "raw":
            return blocks
        given = {} if blocks.get("inverse_problem") is None else blocks["inverse_problem"]
        return blocks | {"inverse_problem": {"operator": "undersampling"} | given if isinstance(given, dict) else given}

    @check(mode="after")
    def _blocks_agree(self) -> Config:
        data, network = self.data, self.network
        if network.image_size != data.image_size:
            reason = f"data.image_size is {data.image_size}; make the two equal"
            raise _refuse("network.image_size", f"found {network.image_size}; {reason}")
        if network.in_channels != data.network_channels:
            reason = f"data.kind {data.kind} needs {data.network_channels}"
            raise _refuse("network.in_channels", f"found {network.in_channels}; {reason}")
        if self.diffusion.parametrisation == ("edm" if data.is_mri else "sense"):
            reason = "it is for images, use sense for MRI" if data.is_mri else "it is for MRI, use edm for images"
            raise _refuse("diffusion.parametrisation", f"found '{self.diffusion.parametrisation}'; {reason}")
        _check_mask("data.mask", data.mask, data.image_size)
        if self.inverse_problem is not None:
            _check_problem(self.inverse_problem, data)
        self._settle()
        problem = self.inverse_problem
        if problem is not None and problem.likelihood_weight != 1 and problem.step_size != "proximal":
            reason = f"step_size {problem.step_size:g} does not know of the noise; use step_size: proximal"
            raise _refuse("inverse_problem.likelihood_weight", f"found {problem.likelihood_weight:g}; {reason}")
        if problem is not None and self.sample.order == 2:
            raise _refuse("sample.order", "found 2; it is to generate, use 1 for inverse problems")
        if problem is None and self.sample.warm_start is not None:
            raise _refuse("sample.warm_start", f"found {self.sample.warm_start}; it is for inverse problems, use null")
        return self

    def _settle(self) -> None:
        """Put in the values that depend on another block, so that the recorded config shows what ran."""
        values: dict[str, Any] = {}
        if self.sample.preset:
            solve = self.inverse_problem is not None
            values = preset(self.sample.preset, inverse_problem=solve, mri=self.data.is_mri)
            values["masks"] = "covering" if values.pop("covering") else "iid"
        elif self.inverse_problem is not None:
            published = preset("published", inverse_problem=True, mri=self.data.is_mri)
            values = {name: published[name] for name in ("eta", "step_size")}
            if self.data.kind == "raw":
                values["step_size"] = "proximal"
        if self.data.kind == "raw":
            values["samples"] = 8
        for name in ("sample", "inverse_problem"):
            block = getattr(self, name)
            if block is not None:
                free = type(block).model_fields.keys() - block.model_fields_set
                update = {key: value for key, value in values.items() if key in free}
                object.__setattr__(self, name, block.model_copy(update=update))


def _check_mask(field: str, mask: AnyMask, size: int) -> None:
    if isinstance(mask, BoxMaskConfig) and size % mask.grid:
        raise _refuse(f"{field}.grid", f"found {mask.grid}; use a divisor of data.image_size {size}")
    if not isinstance(mask, BoxMaskConfig) and mask.center > size:
        raise _refuse(f"{field}.center", f"found {mask.center}; at most data.image_size {size}")
    if isinstance(mask, CartesianMaskConfig) and mask.pattern == "uniform" and mask.acceleration % 1:
        raise _refuse(f"{field}.acceleration", f"found {mask.acceleration}; uniform needs a whole number")


def _check_problem(problem: InverseProblemConfig, data: DataConfig) -> None:
    at = "inverse_problem"
    if problem.operator == "undersampling" and not data.is_mri:
        photos = "box, random, super_resolution, gaussian_blur, motion_blur or colorization"
        raise _refuse(f"{at}.operator", f"found 'undersampling'; data.kind {data.kind} takes {photos}")
    if data.is_mri and problem.operator != "undersampling":
        raise _refuse(f"{at}.operator", f"found '{problem.operator}'; data.kind {data.kind} takes undersampling")
    if problem.operator == "undersampling" and (problem.mask is None) != (data.kind == "raw"):
        reason = (
            "remove it, or set inverse_problem=null: raw files have masks"
            if problem.mask
            else "missing; operator undersampling needs it"
        )
        raise _refuse(f"{at}.mask", reason)
    if problem.operator == "colorization" and data.channels != 3:
        raise _refuse(f"{at}.operator", "found 'colorization'; it needs data.channels 3")
    if problem.hole and problem.hole > data.image_size:
        raise _refuse(f"{at}.hole", f"found {problem.hole}; at most data.image_size {data.image_size}")
    if problem.factor and data.image_size % problem.factor:
        raise _refuse(f"{at}.factor", f"found {problem.factor}; use a divisor of {data.image_size} (image_size)")
    if problem.mask:
        _check_mask(f"{at}.mask", problem.mask, data.image_size)
