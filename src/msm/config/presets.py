"""Named settings of the samplers: as the paper says, as the published code has them, as measured best here.

    generate(..., **preset("best"))        reconstruct(..., **preset("best", inverse_problem=True, mri=True))

What each one gives is in docs/presets.md. Source of "paper" and "published": SPEC §5, §6 and §8.
"""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["paper", "published", "best"]


def preset(name: Preset, *, inverse_problem: bool = False, mri: bool = False) -> dict[str, Any]:
    """Keyword arguments of `generate`, or of `reconstruct`.

    Args:
        name: "paper", 200 steps whose masks are drawn independently, one a step to generate; "published", 200 steps of
            two masks (photos) or three (else) that cover the image together; "best", 20 steps, even in log σ to
            generate and for MRI.
        inverse_problem: whether they are for `reconstruct`.
        mri: whether z is k-space of several coils.

    Raises:
        ValueError: if there is no such preset.
    """
    if name not in ("paper", "published", "best"):
        raise ValueError(f"preset must be paper, published or best, got {name!r}")
    chosen: dict[str, Any] = {"steps": 200, "draws": 3, "eta": 1.0, "covering": name != "paper", "score": "average"}
    if name == "best":
        chosen["steps"] = 20
    if not inverse_problem:
        best = {"grid": "log", "order": 2}
        return chosen | (best if name == "best" else {"draws": 1 if name == "paper" else 3, "grid": "time", "order": 1})
    chosen |= {"draws": 3 if mri else 2, "eta": 0.85, "grid": "time", "warm_start": None, "proximal_iterations": 6}
    if name != "best":
        return chosen | {"step_size": 2.0 if mri else 1.75}
    # MRI measures the centre of k-space: what is left to find is fine, and a linear reconstruction is wrong by far less
    # than 1 at any frequency. Photos have holes, whose large scales take their steps at high noise, from noise alone.
    best_mri = {"grid": "log", "warm_start": 1.0, "proximal_iterations": 20}
    return chosen | {"step_size": "proximal"} | (best_mri if mri else {})
