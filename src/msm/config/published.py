"""From a YAML file to plain settings in this library's layout; the published layout is converted.

`convert` takes the published layout: top-level blocks setting, dataset, vp_diffusion, train, inverse_problems
(SPEC §8). Only these names and what the settings mean are known here, not how they are nested. So a leaf is
matched by its own name wherever it stands: the names of SPEC §8 and the symbols of SPEC §3 to §7 (p, R, rho,
tau, lambda, w, eta, gamma, "ddim200", …). Under a block whose name begins with "inverse", the names of the
inverse problem count. A key without a counterpart is handed back, not guessed at.
"""

import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from .yaml_text import parse, read_text


class Settings(NamedTuple):
    """What a file says, unchecked."""

    values: dict[str, Any]
    """Settings in this library's layout."""
    origin: dict[str, str]
    """For a field converted from the published layout, the dotted key it came from."""
    ignored: list[str]
    """Dotted keys of the published layout without a counterpart here."""


def read(path: Path) -> Settings:
    """Read a YAML file in either layout.

    Args:
        path: the file.

    Returns:
        Its settings in this library's layout.

    Raises:
        ConfigError: a file that cannot be read, is not YAML, or holds no settings.
    """
    raw = parse(read_text(path), str(path))
    if not isinstance(raw, dict):
        found = reprlib.repr(raw)
        raise ConfigError(f"{path}: found {found}; a config has blocks of settings (see the files in configs/)")
    if not is_published(raw):
        return Settings(raw, {}, [])
    try:
        return convert(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error


_MODEL_AND_TRAINING: dict[str, tuple[str, ...]] = {
    "save_dir": ("setting.save_dir",),
    "pretrained_model_dir": ("setting.pretrained_model_dir",),
    "dataset_dir": ("setting.dataset_dir",),
    "image_size": ("data.image_size", "network.image_size"),
    "in_channels": ("network.in_channels",),
    "num_channels": ("network.num_channels",),
    "num_res_blocks": ("network.num_res_blocks",),
    "channel_mult": ("network.channel_mult",),
    "attention_resolutions": ("network.attention_resolutions",),
    "num_head_channels": ("network.num_head_channels",),
    "lr": ("train.lr",),
    "learning_rate": ("train.lr",),
    "weight_decay": ("train.weight_decay",),
    "batch_size": ("train.batch_size",),
    "microbatch": ("train.accumulate",),
    "ema_rate": ("train.ema_decay",),
    "ema_decay": ("train.ema_decay",),
    "tau": ("train.sure_tau",),
    "sure_tau": ("train.sure_tau",),
    "lam": ("train.sure_weight",),
    "lambda": ("train.sure_weight",),
    "sure_lambda": ("train.sure_weight",),
    "sure_lam": ("train.sure_weight",),
    "sure_weight": ("train.sure_weight",),
    "center": ("data.mask.center",),
    "acs": ("data.mask.center",),
    "timestep_respacing": ("diffusion.train_steps", "sample.steps"),
}
_MASK = dict.fromkeys(("p", "drop", "drop_rate", "drop_prob"), "drop") | dict.fromkeys(
    ("r", "acceleration", "acceleration_rate", "acc_rate", "acc"), "acceleration"
)
_NOISE = ("noise", "noise_level", "noise_std", "noise_sigma", "rho")
_SAMPLER = {"eta": "sample.eta", "w": "sample.draws", "num_masks": "sample.draws", "n_masks": "sample.draws"}
_STEP = ("gamma", "step_size", "lam", "lambda")
_PROBLEM = dict.fromkeys(("hole", "box_size", "hole_size"), "hole") | dict.fromkeys(
    ("factor", "scale_factor", "sr_factor", "downsample"), "factor"
)
_FIXED: dict[str, Any] = {
    "learn_sigma": False,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "dropout": 0,
}
_NAMES = ("name", "data_name", "dataset", "dataset_name", "data", "data_type")
_OPERATOR_NAMES = ("operator", "task", "name", "type", "problem", "inverse_problem", "inverse_problems")
_OPERATORS = {  # how an operator's name begins or what it holds -> ours
    r"box": "box",
    r"^sr|super": "super_resolution",
    r"mri|undersampl": "undersampling",
    r"motion": "motion_blur",
    r"gauss": "gaussian_blur",
    r"colou?r": "colorization",
    r"random": "random",
}


def is_published(raw: dict[Any, Any]) -> bool:
    """Whether the top-level names are the published ones."""
    return not {"data", "network"} & raw.keys() and bool({"dataset", "vp_diffusion", "inverse_problems"} & raw.keys())


def convert(raw: dict[Any, Any]) -> Settings:
    """Turn settings in the published layout into this library's.

    Args:
        raw: the parsed file.

    Returns:
        Our settings, where each came from, and the keys that were ignored.

    Raises:
        ConfigError: one line, "dotted.key: what was found; what to do".
    """
    leaves = [(path, value) for path, value in _leaves(raw, (), set()) if value is not None]
    mri, operator = _is_mri(leaves), _operator(leaves)
    flat: dict[str, Any] = {}
    origin: dict[str, str] = {}
    ignored: list[str] = []
    for path, value in leaves:
        name, key = path[-1].lower(), ".".join(path)
        if name in _FIXED:
            if value != _FIXED[name]:
                raise ConfigError(f"{key}: found {reprlib.repr(value)}; only {_FIXED[name]} is supported, as published")
            continue
        targets = _targets(path, mri, operator)
        if not targets and not _is_name(path):
            ignored.append(key)
        for target in targets:
            plain = _plain(name, value)
            if target in flat and flat[target] != plain:
                found = f"found {reprlib.repr(value)}, but {origin[target]} says otherwise"
                raise ConfigError(f"{key}: {found}; keep one of the two")
            flat[target], origin[target] = plain, key
    _complete(flat, mri, operator)
    values: dict[str, Any] = {}
    for target, value in flat.items():
        *blocks, last = target.split(".")
        inner = values
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[last] = value
    return Settings(values, origin, ignored)


Leaf = tuple[tuple[str, ...], Any]


def _leaves(block: dict[Any, Any], path: tuple[str, ...], above: set[int]) -> Iterator[Leaf]:
    """All values below a block, each once, with the keys that lead there."""
    if id(block) in above:  # a YAML alias: the same block again, or itself
        return
    above.add(id(block))
    for key, value in block.items():
        here = (*path, str(key))
        if isinstance(value, dict):
            yield from _leaves(value, here, above)
        else:
            yield here, value


def _in_problem(path: tuple[str, ...]) -> bool:
    return any(part.lower().startswith("inverse") for part in path)


def _is_name(path: tuple[str, ...]) -> bool:
    return path[-1].lower() in (_OPERATOR_NAMES if _in_problem(path) else _NAMES)


def _is_mri(leaves: list[Leaf]) -> bool:
    """By the data's name; failing that, by an acceleration or two channels."""
    for path, value in leaves:
        if not _in_problem(path) and _is_name(path) and isinstance(value, str):
            if "mri" in value.lower():
                return True
            if re.search("ffhq|face|image", value.lower()):
                return False
    names = {path[-1].lower(): value for path, value in leaves if not _in_problem(path)}
    return names.get("in_channels") == 2 or any(_MASK.get(name) == "acceleration" for name in names)


def _operator(leaves: list[Leaf]) -> str | None:
    for path, value in leaves:
        if _in_problem(path) and _is_name(path) and isinstance(value, str):
            for pattern, operator in _OPERATORS.items():
                if re.search(pattern, value.lower()):
                    return operator
    return None


def _targets(path: tuple[str, ...], mri: bool, operator: str | None) -> tuple[str, ...]:
    """Our fields for a published leaf; none if there is no counterpart."""
    name = path[-1].lower()
    if name in _SAMPLER:
        return (_SAMPLER[name],)
    if _in_problem(path) or name in ("gamma", "step_size"):
        if operator is None:
            return ()
        if name in _STEP:
            return ("sample.data_step.gamma",)
        if name in _NOISE:
            return ("inverse_problem.noise_std",)
        if _MASK.get(name) == "acceleration" and operator == "undersampling":
            return ("inverse_problem.mask.acceleration",)
        wanted = {"box": "hole", "super_resolution": "factor"}.get(operator)
        return (f"inverse_problem.{wanted}",) if wanted and _PROBLEM.get(name) == wanted else ()
    if name in _NOISE:
        return ("data.noise_std",)
    if name in _MASK:
        fits = (_MASK[name] == "acceleration") == mri
        return (f"data.mask.{_MASK[name]}",) if fits else ()
    if name in ("center", "acs") and not mri:
        return ()
    return _MODEL_AND_TRAINING.get(name, ())


def _plain(name: str, value: Any) -> Any:
    """A published value as ours: "1,1,2,3,4" is a list, "ddim200" is 200, "" is all 1000 steps."""
    if name in ("channel_mult", "attention_resolutions") and isinstance(value, str):
        return [int(part) if part.strip().isdecimal() else part for part in value.split(",")]
    if name == "timestep_respacing" and isinstance(value, str):
        steps = re.fullmatch(r"(?:ddim)?([0-9]{1,4})", value)
        return 1000 if value == "" else int(steps[1]) if steps else value
    return value


def _complete(flat: dict[str, Any], mri: bool, operator: str | None) -> None:
    """Add what the published layout leaves unsaid; refuse to guess the subsampling and the noise."""
    flat["data.kind"] = "fastmri" if mri else "images"
    flat["data.mask.kind"] = "cartesian" if mri else "box"
    need = {
        "data.noise_std": ("noise_level", "the measurement noise rho"),
        "data.mask.acceleration" if mri else "data.mask.drop": (
            "acceleration_rate" if mri else "p",
            "the acceleration R" if mri else "the share of boxes dropped",
        ),
    }
    for target, (name, what) in need.items():
        if target not in flat:
            raise ConfigError(f"dataset.{name}: missing; add {what} under this name")
    flat.setdefault("network.in_channels", 2 if mri else 3)
    if not mri:
        flat["data.channels"] = flat["network.in_channels"]
    batch, part = flat.get("train.batch_size"), flat.pop("train.accumulate", None)
    if isinstance(batch, int) and isinstance(part, int) and 0 < part < batch:
        flat["train.accumulate"] = -(-batch // part)
    if operator is not None:
        flat["inverse_problem.operator"] = operator
        published = {"box": ("hole", 64), "super_resolution": ("factor", 4)}.get(operator)
        if published:
            flat.setdefault(f"inverse_problem.{published[0]}", published[1])
        if operator == "undersampling":
            flat["inverse_problem.mask.kind"] = "cartesian" if mri else "box"
