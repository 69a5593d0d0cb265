"""Refinement by expectation-maximisation: what a round draws, and what it is trained for (SPEC §14)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .block import Block


class RefineConfig(Block):
    """Rounds of expectation-maximisation.

    The sampler of a round is that of preset best; arithmetic and batches are those of the blocks sample and train.
    """

    rounds: int = Field(default=2, ge=1, description="rounds; one that makes the model worse is the last")
    samples: int = Field(default=1, ge=1, description="posterior samples drawn of each acquisition in a round")
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="reverse steps of a sample of the model to begin with, and as many network calls in later rounds, "
        "in steps of one mask; null: those of preset best, and 20",
    )
    images: int = Field(default=16_000, ge=1, description="training images of a round")
    lr: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="learning rate of a round, falling to zero; null: half of train.lr"
    )
    measured_share: float = Field(
        default=0.0, ge=0, lt=1, description="share of training images that are measurements as they are, not filled in"
    )
    validation_share: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="share of the acquisitions, evenly spaced, that is not trained on: rounds are judged by them, and "
        "the error of estimates is measured on them; without effect where train.validation_share kept some out before",
    )
