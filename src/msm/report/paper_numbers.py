"""The paper's numbers (SPEC §9), each with its setting: shown only beside results of the same one."""

from dataclasses import dataclass

from ..config.load import Config
from ..config.measured import BoxMaskConfig, CartesianMaskConfig

FID_IMAGES = 3000


@dataclass(frozen=True)
class PaperRow:
    """PSNR in dB and LPIPS of a method, convention published."""

    method: str
    psnr: float
    lpips: float


def _rows(*rows: tuple[str, float, float]) -> tuple[PaperRow, ...]:
    return tuple(PaperRow(*row) for row in rows)


BOX = _rows(("input", 18.26, 0.304), ("A-DPS", 20.14, 0.305), ("MSM", 24.71, 0.076))
TIMES_4 = _rows(("input", 23.21, 0.459), ("A-DPS", 22.61, 0.277), ("MSM", 28.11, 0.117))
MRI = {
    4: _rows(("input", 22.75, 0.306), ("A-DPS", 27.28, 0.173), ("SSDU", 29.65, 0.160), ("MSM", 30.71, 0.145)),
    6: _rows(("input", 21.94, 0.342), ("A-DPS", 26.29, 0.201), ("SSDU", 28.02, 0.186), ("MSM", 28.86, 0.168)),
}
FACES_FID = {0.0: {"oracle": 10.21, "MSM": 29.14, "Ambient diffusion": 55.90}, 0.1: {"MSM": 37.14, "GSURE": 89.71}}
MRI_FID = {0.0: {"oracle": 28.41, "MSM": 64.37, "Ambient diffusion": 70.07}, 0.1: {"MSM": 82.17}}


def paper_rows(config: Config) -> tuple[PaperRow, ...]:
    """The paper's reconstructions of the setting of a config, none for other settings."""
    problem = config.inverse_problem
    if problem is None or problem.operator == "missing" or problem.noise_std != 0.01 or config.data.noise_std:
        return ()
    if _is_faces(config):
        if problem.operator == "box" and problem.hole == 64:
            return BOX
        return TIMES_4 if problem.operator == "super_resolution" and problem.factor == 4 else ()
    mask = problem.mask if problem.operator == "undersampling" else None
    if _is_mri(config) and isinstance(mask, CartesianMaskConfig) and (mask.center, mask.pattern) == (20, "random"):
        return MRI.get(int(mask.acceleration), ()) if mask.acceleration % 1 == 0 else ()
    return ()


def paper_fid(config: Config) -> dict[str, float]:
    """The paper's FID of the setting of a config, by method, none for other settings."""
    if config.inverse_problem is not None or config.sample.count != FID_IMAGES:
        return {}
    if _is_faces(config):
        return FACES_FID.get(config.data.known_noise_std, {})
    return MRI_FID.get(config.data.known_noise_std, {}) if _is_mri(config) else {}


def _is_faces(config: Config) -> bool:
    """Trained as the paper's faces were; whether the photos are the same cannot be known."""
    data = config.data
    return (data.kind, data.image_size, data.channels, data.mask) == ("images", 128, 3, BoxMaskConfig())


def _is_mri(config: Config) -> bool:
    """Trained as the paper's brain model was."""
    data = config.data
    return (data.kind, data.image_size, data.mask) == ("fastmri", 256, CartesianMaskConfig())
