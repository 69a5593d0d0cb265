"""Settings of a run: frozen pydantic models, one for each block of the YAML file (`msm.config.load` reads it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic import field_validator as of_fields
from pydantic import model_validator as check

from .block import Block, refuse_all
from .measured import AnyMask, AnyProblem, DataConfig, ProblemConfig, UndersamplingProblem
from .refined import RefineConfig
from .sampled import OF_SAMPLER, DrawConfig, GradientStepConfig, ProximalConfig, SampleConfig
from .trained import DiffusionConfig, NetworkConfig, TrainConfig

REAL = ("raw", "masked")  # kinds of data that were measured, not simulated: nobody knows the complete image


class Setting(Block):
    """Where things are (the published block)."""

    save_dir: Path = Field(description="folder of this run: config, log, checkpoints, images")
    pretrained_model_dir: Path | None = Field(
        default=None,
        description="weights: the folder of a training run, bundled:NAME, a weights folder, or a published .pt file",
    )
    dataset_dir: Path | None = Field(
        default=None,
        description="a folder, read as data.kind says, or an .h5 store written by msm acquire; for data.kind raw "
        "and msm sample: a raw file, or a folder of them",
    )
    coil_maps: Path | None = Field(
        default=None,
        description="data.kind raw: coil maps of your own, a .npy, .npz, .mat or .cfl file (coils, H, W), or a folder "
        "with one named as each scan; null: estimated",
    )

    @of_fields("save_dir", "pretrained_model_dir", "dataset_dir", "coil_maps")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        """~ is the home folder, which no shell puts in behind an equals sign."""
        try:
            return path and path.expanduser()
        except RuntimeError:  # of nobody
            return path


class Config(Block):
    """All settings of a run. `inverse_problem` is None for training and generation."""

    setting: Setting = Field(description="save_dir, pretrained_model_dir, dataset_dir")
    data: DataConfig = Field(description="kind, image_size, mask and noise of the measurements")
    network: NetworkConfig = Field(description="the ADM U-Net: image_size, in_channels, channel_mult, ...")
    diffusion: DiffusionConfig = Field(default=DiffusionConfig(), description="what the network predicts")
    train: TrainConfig = Field(default=TrainConfig(), description="the training loop")
    refine: RefineConfig = Field(default=RefineConfig(), description="rounds of expectation-maximisation")
    sample: SampleConfig = Field(default=SampleConfig(), description="the sampler")
    inverse_problem: ProblemConfig | None = Field(default=None, description="null for generation")

    @check(mode="before")
    @classmethod
    def _kind_of_data_step(cls, blocks: Any) -> Any:
        """The automatic kind, where a data step is given without one."""
        sample = blocks.get("sample") if isinstance(blocks, dict) else None
        step = sample.get("data_step") if isinstance(sample, dict) else None
        if not isinstance(sample, dict) or not isinstance(step, dict) or step.get("kind") is not None:
            return blocks
        data = blocks.get("data")
        real = isinstance(data, dict) and data.get("kind") in REAL
        given = {"kind": _automatic_kind(sample.get("preset"), real), **{k: v for k, v in step.items() if k != "kind"}}
        return blocks | {"sample": sample | {"data_step": given}}

    @check(mode="after")
    def _blocks_agree(self) -> Config:
        own = {"image_size": self.data.image_size, "in_channels": self.data.network_channels}
        object.__setattr__(self, "network", self.network.with_automatic(own))
        self._settle()
        if faults := list(self._disagreements()):
            raise refuse_all(faults)
        return self

    def _disagreements(self) -> Iterator[tuple[str, str]]:
        """Field and reason of all that does not go together."""
        data, network, sample, problem = self.data, self.network, self.sample, self.inverse_problem
        if network.image_size != data.image_size:
            reason = f"data.image_size is {data.image_size}; make the two equal, or leave this one out"
            yield "network.image_size", f"found {network.image_size}; {reason}"
        if network.in_channels != data.network_channels:
            reason = f"data.kind {data.kind} needs {data.network_channels}; leave it out"
            yield "network.in_channels", f"found {network.in_channels}; {reason}"
        yield from _check_network(network)
        if self.diffusion.parametrisation == ("edm" if data.is_mri else "sense"):
            reason = "it is for images, use sense for MRI" if data.is_mri else "it is for MRI, use edm for images"
            yield "diffusion.parametrisation", f"found '{self.diffusion.parametrisation}'; {reason}"
        yield from _check_mask("data.mask", data.mask, data.image_size)
        if data.kind == "masked" and self.train.remask:
            yield "train.remask", "found True; masked photos have no pixels to draw other masks from, use false"
        if problem is not None:
            yield from _check_problem(problem, data)
        if isinstance(sample.data_step, DrawConfig) and sample.eta != 1:
            yield "sample.eta", f"found {sample.eta}; data step draw needs 1 or null"
        if problem is not None and sample.order == 2:
            yield "sample.order", "found 2; it is to generate, use 1 for inverse problems"
        if problem is None and sample.warm_start != "none":
            yield "sample.warm_start", f"found {sample.warm_start}; it is for inverse problems, use none"

    def _settle(self) -> None:
        """Put in what is automatic: it depends on other blocks."""
        from ..data_step import GradientStep, Proximal, preset_data_step  # with torch, which takes seconds
        from ..sampling import Sampler

        raw, real, mri = self.data.kind == "raw", self.data.kind in REAL, self.data.is_mri
        if raw and self.inverse_problem is None:
            object.__setattr__(self, "inverse_problem", UndersamplingProblem.model_construct(set()))
            self.model_fields_set.discard("inverse_problem")  # not asked for: null is automatic
        preset, solve = self.sample.preset, self.inverse_problem is not None
        sampler = (Sampler.preset(preset, mri=mri, inverse_problem=solve) if preset else Sampler()).resolved(solve)
        values = {name: getattr(sampler, name) for name in OF_SAMPLER}
        values |= {"masks": "covering" if sampler.covering else "iid", "warm_start": sampler.warm_start or "none"}
        step = self.sample.data_step
        if step is None and solve:
            kinds = {"gradient": GradientStepConfig, "proximal": ProximalConfig, "draw": DrawConfig}
            step = kinds[_automatic_kind(preset, real)]()
        if isinstance(step, GradientStepConfig):
            published = preset_data_step("published", mri=mri)
            assert isinstance(published, GradientStep)
            step = step.with_automatic({"gamma": published.gamma})
        elif step is not None:
            usual = preset_data_step("best", mri=mri) if preset == "best" else Proximal()
            assert isinstance(usual, Proximal)
            step = step.with_automatic({"iterations": max(usual.iterations, self.diffusion.sense_iterations)})
        if isinstance(step, DrawConfig):
            values["eta"] = 1.0  # fresh noise is all that leads from a draw to the next level
        sample = self.sample.with_automatic({**values, "samples": 8 if real else 1})
        object.__setattr__(sample, "data_step", step)
        object.__setattr__(self, "sample", sample)


def _automatic_kind(preset: Any, real: bool) -> str:
    """How an inverse problem is solved where nothing is said."""
    if preset == "best":
        return "draw"
    return "proximal" if real and preset is None else "gradient"


def _check_network(network: NetworkConfig) -> Iterator[tuple[str, str]]:
    from ..network import SettingError, check_settings  # with torch, which takes seconds

    try:
        check_settings(network.model_dump())
    except SettingError as error:
        yield f"network.{error.name}", error.reason


def _check_mask(field: str, mask: AnyMask, size: int) -> Iterator[tuple[str, str]]:
    if mask.kind == "empirical" and field != "data.mask":
        yield field, "found 'empirical'; a measurement needs a law of masks, for example cartesian"
    if mask.kind == "box" and size % mask.grid:
        yield f"{field}.grid", f"found {mask.grid}; use a divisor of data.image_size {size}"
    if (mask.kind == "cartesian" or mask.kind == "variable_density") and mask.center > size:
        yield f"{field}.center", f"found {mask.center}; at most data.image_size {size}"
    if mask.kind == "cartesian" and mask.pattern == "uniform" and mask.acceleration % 1:
        yield f"{field}.acceleration", f"found {mask.acceleration}; uniform needs a whole number"


def _check_problem(problem: AnyProblem, data: DataConfig) -> Iterator[tuple[str, str]]:
    at, size = "inverse_problem", data.image_size
    fits = {"undersampling": data.is_mri, "missing": data.kind == "masked"}
    if not fits.get(problem.operator, data.kind == "images"):
        photos = "box, random, super_resolution, gaussian_blur, motion_blur or colorization"
        takes = "undersampling" if data.is_mri else "missing" if data.kind == "masked" else photos
        yield f"{at}.operator", f"found '{problem.operator}'; data.kind {data.kind} takes {takes}"
    if problem.operator == "undersampling":
        if problem.mask is None and data.kind != "raw":
            yield f"{at}.mask", "missing; operator undersampling needs it"
        if problem.mask is not None and data.kind == "raw":
            yield f"{at}.mask", "remove it, or set inverse_problem=null: raw files have masks"
        if problem.mask is not None:
            yield from _check_mask(f"{at}.mask", problem.mask, size)
    if problem.operator == "colorization" and data.channels != 3:
        yield f"{at}.operator", "found 'colorization'; it needs data.channels 3"
    if problem.operator == "box" and problem.hole > size:
        yield f"{at}.hole", f"found {problem.hole}; at most data.image_size {size}"
    if problem.operator == "super_resolution" and size % problem.factor:
        yield f"{at}.factor", f"found {problem.factor}; use a divisor of {size} (image_size)"
