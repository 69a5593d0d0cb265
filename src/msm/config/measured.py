"""What is measured: the masks, the data, and the inverse problems posed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic import model_validator as check

from .block import AUTOMATIC, Block, refuse

Size = Annotated[int, Field(ge=8, le=4096, description="side of the square image, in pixels")]


class BoxMaskConfig(Block):
    """Boxes of a coarse grid are dropped (SPEC §7)."""

    kind: Literal["box"] = "box"
    drop: float = Field(default=0.4, ge=0, lt=1, description="share p of the boxes dropped")
    grid: int = Field(default=4, ge=1, description="boxes along each side")


class CartesianMaskConfig(Block):
    """Columns of k-space are kept (SPEC §7)."""

    kind: Literal["cartesian"] = "cartesian"
    acceleration: float = Field(default=4, ge=1, description="nominal R: one column in R off the centre")
    center: int = Field(default=20, ge=0, description="centre columns always kept")
    pattern: Literal["random", "uniform"] = Field(default="random", description="columns off the centre")


class VariableDensityMaskConfig(Block):
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
            raise refuse("acceleration", f"found {self.acceleration}; at least 1.5 where corners are left out")
        return self


class FullMaskConfig(Block):
    """Everything is measured."""

    kind: Literal["full"] = "full"


class EmpiricalMaskConfig(Block):
    """The masks that the photos of data.kind masked came with, each equally likely (SPEC §7)."""

    kind: Literal["empirical"] = "empirical"


AnyMask = BoxMaskConfig | CartesianMaskConfig | VariableDensityMaskConfig | FullMaskConfig | EmpiricalMaskConfig
MaskConfig = Annotated[AnyMask, Field(discriminator="kind")]


class DataConfig(Block):
    """What the measurements are."""

    kind: Literal["images", "masked", "fastmri", "slices", "raw"] = Field(
        description="how dataset_dir is read: complete photos, of which pixels are taken away; masked: photos that "
        "miss pixels; fastMRI as the paper's authors prepared it (fastMRI's own files are `raw`), slices given "
        "simulated coils, raw k-space"
    )
    image_size: Size
    channels: Literal[1, 3] = Field(default=3, description="colour channels (images, masked)")
    masks_dir: Path | None = Field(
        default=None,
        description="masked: a folder of masks, for each photo the file of its name before the suffix; white was "
        "measured, all else is missing; null: what is not fully opaque, NaN, or a TIFF's no-data value",
    )
    value_range: tuple[float, float] | None = Field(
        default=None,
        description="what is black and white in files of more than 8 bits (images, masked, slices); null: 0 and 65535, "
        "in floating point 0 and 1",
    )
    coils: int = Field(default=8, ge=1, le=128, description="simulated receive coils (slices only)")
    phase_detail: float = Field(
        default=0.0, ge=0, description="fine structure of the simulated phase, in radians; scanners: 0.4 (slices only)"
    )
    mask: MaskConfig = Field(
        default=AUTOMATIC, description="p(S), the random subsampling; masked: null, for the masks of the photos"
    )
    noise_std: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default=0.0, description="measurement noise rho, per real entry; masked: auto estimates it from each photo"
    )
    demo: bool = Field(
        default=False, description="of several tables of volumes (CSV) take the one named DEMO_… (fastmri only)"
    )
    limit: int | None = Field(default=None, ge=1, description="first so many images only; null: all")
    held_out: int = Field(
        1000, ge=0, description="first images of a folder, kept for testing (folders of 100 images or more)"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the masks and noise acquired")

    @check(mode="after")
    def _fits(self) -> DataConfig:
        masked = self.kind == "masked"
        if self.mask is None:
            if not masked:
                raise refuse("mask", "missing; set it to p(S), the random subsampling")
            object.__setattr__(self, "mask", EmpiricalMaskConfig())
        if self.mask.kind == "empirical" and not masked:
            raise refuse("mask.kind", "found 'empirical'; it is for data.kind masked, whose files have masks")
        if self.masks_dir is not None and not masked:
            raise refuse("masks_dir", f"found {self.masks_dir}; it is for data.kind masked, set that or leave it out")
        if self.noise_std == "auto" and not masked:
            raise refuse("noise_std", "found 'auto'; simulated noise needs a number, of a store see train.noise_std")
        if self.value_range is not None and self.kind in ("raw", "fastmri"):
            raise refuse("value_range", f"found {list(self.value_range)}; it is for images, masked and slices")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise refuse("value_range", f"found {list(self.value_range)}; write [black, white], the lower one first")
        return self

    @property
    def is_mri(self) -> bool:
        """Whether the images are complex and measured in k-space."""
        return self.kind not in ("images", "masked")

    @property
    def noise(self) -> str:
        """The noise level, as a reader is told."""
        return "estimated for each photo" if isinstance(self.noise_std, str) else f"{self.noise_std:g}"

    @property
    def known_noise_std(self) -> float:
        """The noise level, where it is a number: of all but masked photos."""
        assert not isinstance(self.noise_std, str)
        return self.noise_std

    @property
    def network_channels(self) -> int:
        """Real channels the network works on: two for a complex image."""
        return 2 if self.is_mri else self.channels


class _Problem(Block):
    """y = H z + e (SPEC §6)."""

    noise_std: float = Field(
        default=0.01, ge=0, description="standard deviation of e; data.kind raw: not used, it is estimated"
    )


class BoxProblem(_Problem):
    """A square hole in the middle."""

    operator: Literal["box"] = "box"
    hole: int = Field(ge=1, description="side of the square hole, in pixels")


class RandomProblem(_Problem):
    """Random pixels are missing, others in every image."""

    operator: Literal["random"] = "random"
    keep: float = Field(gt=0, lt=1, description="share of the pixels kept")


class SuperResolutionProblem(_Problem):
    """Bicubic down-sampling."""

    operator: Literal["super_resolution"] = "super_resolution"
    factor: int = Field(ge=2, description="down-sampling factor")


class GaussianBlurProblem(_Problem):
    """Gaussian blur."""

    operator: Literal["gaussian_blur"] = "gaussian_blur"
    blur_sigma: float = Field(gt=0, description="width, in pixels")


class MotionBlurProblem(_Problem):
    """Blur along a line."""

    operator: Literal["motion_blur"] = "motion_blur"
    blur_length: float = Field(gt=0, description="length, in pixels")
    blur_angle: float = Field(description="direction, in degrees")


class ColorizationProblem(_Problem):
    """Only a grey image is measured."""

    operator: Literal["colorization"] = "colorization"


class UndersamplingProblem(_Problem):
    """Accelerated MRI."""

    operator: Literal["undersampling"] = "undersampling"
    mask: MaskConfig | None = Field(
        default=None, description="the mask of the measurement; data.kind raw: left out, it is in the file"
    )


class MissingProblem(Block):
    """What a photo of data.kind masked misses itself; its noise is data.noise_std."""

    operator: Literal["missing"] = "missing"


AnyProblem = (
    BoxProblem
    | RandomProblem
    | SuperResolutionProblem
    | GaussianBlurProblem
    | MotionBlurProblem
    | ColorizationProblem
    | UndersamplingProblem
    | MissingProblem
)
ProblemConfig = Annotated[AnyProblem, Field(discriminator="operator")]
