"""How samples are drawn: the sampler, and how it meets the data of an inverse problem."""

from typing import Annotated, Literal

from pydantic import Field

from .block import AUTOMATIC, Block
from .trained import Precision


class GradientStepConfig(Block):
    """The published step ẑ − γ H⁺(H ẑ − y)."""

    kind: Literal["gradient"] = "gradient"
    gamma: float = Field(
        default=AUTOMATIC, gt=0, description="step size γ; null: 1.75 for images, 2 for MRI, as published"
    )


class _OfEstimate(Block):
    """What the steps that weigh the data by their noise against the error of the estimate have in common."""

    iterations: int = Field(
        default=AUTOMATIC,
        ge=1,
        le=100,
        description="conjugate-gradient steps; null: 6, or 20 for MRI with preset best, but not fewer than "
        "diffusion.sense_iterations",
    )
    likelihood_weight: float = Field(
        default=1.0,
        gt=0,
        description="power of p(y|z); above 1 trusts the data more, for images unlike those of the training",
    )


class ProximalConfig(_OfEstimate):
    """Takes the image that data and estimate make likeliest, for MRI through the coil maps; nothing to tune."""

    kind: Literal["proximal"] = "proximal"


class DrawConfig(_OfEstimate):
    """Draws the image from what data and estimate leave open, for samples of the posterior (SPEC §13)."""

    kind: Literal["draw"] = "draw"


AnyStep = GradientStepConfig | ProximalConfig | DrawConfig
DataStepConfig = Annotated[AnyStep, Field(discriminator="kind")]
OF_SAMPLER = {"steps", "draws", "eta", "score", "grid", "order"}  # fields of `SampleConfig` that `Sampler` has too


class SampleConfig(Block):
    """The sampler (SPEC §5), and how it meets the data of an inverse problem (SPEC §6)."""

    preset: Literal["paper", "published", "best"] | None = Field(
        default=None,
        description="values for what is null of steps, draws, eta, masks, score, grid, order, warm_start, data_step. "
        "paper: as the paper says; published: as the authors' code is set; best: as measured here, a tenth of their "
        "network calls. On the command line it replaces what the file says of these",
    )
    count: int = Field(default=8, ge=1, description="images to generate, or test images to reconstruct")
    samples: int = Field(
        default=AUTOMATIC,
        ge=1,
        description="inverse problems: posterior samples a measurement; null: 8 for data.kind raw and masked, else 1",
    )
    batch_size: int = Field(
        default=8, ge=1, description="images at a time, halved where memory does not suffice; changes no result"
    )
    steps: int = Field(default=AUTOMATIC, ge=1, le=1000, description="reverse diffusion steps")
    draws: int = Field(default=AUTOMATIC, ge=1, description="masks w a step")
    eta: float = Field(
        default=AUTOMATIC, ge=0, le=1, description="fresh noise; null: 1 to generate and with data step draw, else 0.85"
    )
    masks: Literal["iid", "covering"] = Field(default=AUTOMATIC, description="draw of a step's masks")
    score: Literal["average", "chain"] = Field(
        default=AUTOMATIC,
        description="how a step's masks make one estimate; chain takes as many masks as it needs instead of draws, "
        "and a network trained on sub-masks (train.submask_share, train.submask_keep)",
    )
    grid: Literal["time", "log"] = Field(
        default=AUTOMATIC,
        description="spacing of the steps; time: even, published; log: even in the logarithm of the noise level, for "
        "few steps",
    )
    order: Literal[1, 2] = Field(
        default=AUTOMATIC,
        description="to generate; 2: each step also uses the one before, which few steps need, with grid log",
    )
    warm_start: Annotated[float, Field(gt=0.01, le=157)] | Literal["none"] = Field(
        default=AUTOMATIC,
        description="inverse problems: noise level to begin at, with a linear reconstruction instead of noise alone; "
        "biased towards it where its error is not small against this level, 1 for MRI with a measured centre; none: "
        "begin with noise",
    )
    data_step: DataStepConfig | None = Field(
        default=None,
        description="inverse problems: how the estimate meets the data. kind gradient: published; proximal: nothing to "
        "tune; draw: posterior samples; null: draw with preset best, proximal for data.kind raw and masked, else "
        "gradient",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the first sample; sample i has seed + i")
    mixed_precision: Precision = Field(
        default="no", description="arithmetic of the network; float32 on a CPU that has no other"
    )
    compile: bool = Field(
        default=False, description="torch.compile the network: minutes at the start, once for each size of a batch"
    )
