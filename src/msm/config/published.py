"""The published layout of settings files, turned into this library's; docs/how-to/migrate.md tells it to people.

`convert` knows every key of the sixteen published files. What counts here is taken over, under the meaning that it
has there; what fixes the architecture must have its published value; what has no effect here is passed over and
named; a key that is not known, or that contradicts another, is refused by name.
"""

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
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
    told: str
    """What was read from the published layout, and what was passed over; empty for our own."""


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
        raise ConfigError(f"{path}: found {found}; a config has blocks of settings (see `msm configs`)")
    if not is_published(raw):
        return Settings(raw, {}, "")
    try:
        return convert(raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def is_published(raw: Mapping[Any, Any]) -> bool:
    """Whether the top-level names are the published ones."""
    return not {"data", "network"} & raw.keys() and bool({"dataset", "vp_diffusion", "inverse_problems"} & raw.keys())


TAKEN: dict[str, tuple[str, ...]] = {  # key -> our fields that have its value
    "setting.save_dir": ("setting.save_dir",),
    "setting.pretrained_model_dir": ("setting.pretrained_model_dir",),
    "setting.dataset_dir": ("setting.dataset_dir",),
    "setting.num_workers": ("train.workers",),
    "setting.num_samples": ("sample.count",),
    "train.lr": ("train.lr",),
    "train.training_data_noiselevel": ("data.noise_std",),
    "vp_diffusion.image_size": ("data.image_size", "network.image_size"),
    "vp_diffusion.num_channels": ("network.num_channels",),
    "vp_diffusion.num_res_blocks": ("network.num_res_blocks",),
    "vp_diffusion.num_head_channels": ("network.num_head_channels",),
    "vp_diffusion.ddim_eta": ("sample.eta",),
}
READ = {  # block -> keys that the functions below read
    "setting": "is_demo batch_size microbatch save_interval stochastic_loop measurement_noise_level "
    "stepsize_likelihood solve_inverse_problem inverse_problem_type inverse_problem_solver",
    "dataset": "dataset_name mask_pattern acceleration_rate inv_problem_acceleration_rate",
    "train": "tau_SURE lr_SURE",
    "vp_diffusion": "diffusion_model_type diffusion_predtype latent_type in_channels channel_mult microbatch "
    "attention_resolutions timestep_respacing use_ddim",
}
FIXED = {  # keys that change the network or its noise levels -> the only value that there is a network for here
    "vp_diffusion.noise_schedule": "linear",
    "vp_diffusion.learn_sigma": False,
    "vp_diffusion.class_cond": False,
    "vp_diffusion.cond_channels": 0,
    "vp_diffusion.use_scale_shift_norm": True,
    "vp_diffusion.resblock_updown": True,
    "vp_diffusion.use_new_attention_order": False,
    "vp_diffusion.dropout": 0,
}
NO_EFFECT = {
    "setting": "log_interval",
    "vp_diffusion": "use_checkpoint use_fp16 num_heads num_heads_upsample model_path clip_denoised",
}
MASK_OPTIONS = ("mask_opt.mask_type", "mask_opt.image_size")
PROBLEMS = {  # block of `inverse_problems` -> our operator, what its `name` says, its other keys
    "fastmri_reconstruction": ("undersampling", "fastmri_reconstruction", ()),
    "box_inpainting": ("box", "inpainting", (*MASK_OPTIONS, "mask_opt.mask_len_range")),
    "random_inpainting": ("random", "inpainting", (*MASK_OPTIONS, "mask_opt.mask_prob_range")),
    "super_resolution": ("super_resolution", "super_resolution", ("in_shape", "scale_factor")),
    "gaussian_blur": ("gaussian_blur", "gaussian_blur", ("kernel_size", "intensity")),
    "motion_blur": ("", "motion_blur", ("kernel_size", "intensity")),
    "colorization": ("colorization", "colorization", ()),
}
OUR_SOLVER = "measurement_diffusion"
SOLVERS = {"dps": ("scale",), "dds": ("gamma", "CG_iters"), "ddnm": ("gamma",), OUR_SOLVER: ("num_stochastics",)}
KNOWN = {
    *(*TAKEN, *FIXED),
    *(f"{block}.{key}" for group in (READ, NO_EFFECT) for block, keys in group.items() for key in keys.split()),
    *(f"inverse_problems.{block}.{key}" for block, about in PROBLEMS.items() for key in ("name", *about[2])),
    *(f"inverse_problem_solvers.{block}.method" for block in SOLVERS),
    *(f"inverse_problem_solvers.{block}.params.{key}" for block, keys in SOLVERS.items() for key in keys),
}
BLOCKS = {key[:end] for key in KNOWN for end, sign in enumerate(key) if sign == "."}
CHANNEL_MULT = {128: [1, 1, 2, 3, 4], 256: [1, 1, 2, 2, 4, 4]}  # what an empty channel_mult means at these sizes


def convert(raw: Mapping[Any, Any]) -> Settings:
    """Turn settings in the published layout into this library's.

    Args:
        raw: the parsed file.

    Returns:
        Our settings, where each came from, and what was read and passed over, in one line.

    Raises:
        ConfigError: one line, "dotted.key: what was found; what to do".
    """
    file = _File(dict(_leaves(raw, "")))
    for key, value in FIXED.items():
        if (found := file.get(key, value)) != value or isinstance(found, bool) != isinstance(value, bool):
            raise _refused(key, found, f"the network here is the published one, with {value}")
    for key, targets in TAKEN.items():
        if key in file.leaves:
            value = file.get(key)
            for target in targets:
                file.put(target, None if value == "" and key.endswith("_dir") else value, key)
    data = _measured(file)
    _network(file)
    _noise(file)
    _batches(file)
    what = f"{_purpose(file)}, {data}{file.passed_over()}"
    values: dict[str, Any] = {}
    for target, value in file.flat.items():
        *blocks, last = target.split(".")
        inner = values
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[last] = value
    return Settings(values, file.origin, f"published layout: {what}")


class _File:
    """The values of a file by dotted key; collects our fields, where each came from, and which keys were read."""

    def __init__(self, leaves: dict[str, Any]):
        self.leaves, self.unread = leaves, dict.fromkeys(leaves)
        self.flat: dict[str, Any] = {}
        self.origin: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as read."""
        self.unread.pop(key, None)
        return self.leaves.get(key, default)

    def need(self, key: str, what: str) -> Any:
        """The value of a key that there must be."""
        if key not in self.leaves:
            raise ConfigError(f"{key}: missing; add {what}")
        return self.get(key)

    def one_of(self, key: str, values: Collection[str], why: str = "") -> str:
        """The value of a key that must be one of some."""
        found = self.need(key, " or ".join(values))
        if found not in list(values):
            raise _refused(key, found, f"{why}it should be {' or '.join(values)}")
        return str(found)

    def put(self, target: str, value: Any, key: str) -> None:
        """Set one of our fields, from a key."""
        self.flat[target], self.origin[target] = value, key

    @property
    def samples(self) -> bool:
        """Whether it is a file to sample with, not one to train with."""
        return bool({"setting.solve_inverse_problem", "setting.num_samples"} & self.leaves.keys())

    @property
    def is_mri(self) -> bool:
        """Whether the data are fastMRI."""
        return self.one_of("dataset.dataset_name", ("ffhq", "fastmri")) == "fastmri"

    @property
    def is_oracle(self) -> bool:
        """Whether the model is the one of complete, clean images."""
        kinds = (OUR_SOLVER, "unconditional_diffusion")
        return self.one_of("vp_diffusion.diffusion_model_type", kinds) == kinds[1]

    def passed_over(self) -> str:
        """The keys that have no effect, block by block; problems and solvers that were not chosen as a whole."""
        blocks: dict[str, dict[str, None]] = {}
        for key in self.unread:
            block, name = key.split(".")[:2]
            blocks.setdefault(block, {})[name] = None
        named = "; ".join(f"{block}: {', '.join(names)}" for block, names in blocks.items())
        return f"; passed over, without effect here: {named}" if named else ""


def _leaves(block: Mapping[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    """All values that are not null, by dotted key; every key is known."""
    for name, value in block.items():
        key = f"{above}.{name}".lstrip(".")
        if key in BLOCKS and "." not in str(name):
            if not isinstance(value, Mapping | None):
                raise _refused(key, value, "it should be a block of keys")
            yield from _leaves(value or {}, key)
        elif key not in KNOWN or "." in str(name):
            same = sorted(known for known in KNOWN if known.rpartition(".")[2].lower() == str(name).lower())
            near = same or get_close_matches(key, sorted(KNOWN | BLOCKS), n=1, cutoff=0)
            raise ConfigError(f"{key}: unknown key; the nearest known one is {' or '.join(near)}")
        elif value is not None:
            yield key, value


def _refused(key: str, found: Any, reason: str) -> ConfigError:
    return ConfigError(f"{key}: found {reprlib.repr(found)}; {reason}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _purpose(file: _File) -> str:
    """What the file is for, in words."""
    key, predicted = "vp_diffusion.diffusion_predtype", ("epsilon", "pred_xstart")  # the latter by their sampler, of ε
    if (found := file.get(key, "epsilon")) not in predicted[: 1 + file.samples]:
        allowed = " or ".join(predicted[: 1 + file.samples])
        raise _refused(key, found, f"networks here predict epsilon: write {allowed}")
    model = "the oracle" if file.is_oracle else "MSM"
    if file.samples:
        return f"{_problem(file) if _solves(file) else 'generation'} by {model}"
    masks = "" if file.is_oracle else ", each image measured once (as published, at every step: train.remask=true)"
    return f"training of {model} until train.images, which the file does not say{masks}"


def _measured(file: _File) -> str:
    """Kind of the data and law of the masks; returns them in words."""
    mri, key = file.is_mri, "dataset.acceleration_rate"
    rate = file.need(key, "the acceleration R" if mri else "the share p of boxes dropped")
    file.put("data.kind", "fastmri" if mri else "images", "dataset.dataset_name")
    file.put("data.mask.kind", "cartesian" if mri else "box", "dataset.dataset_name")
    if mri and "setting.is_demo" in file.leaves:
        file.put("data.demo", file.get("setting.is_demo"), "setting.is_demo")
    latent = file.get("vp_diffusion.latent_type", "measurement_space" if mri else "image_space")
    if latent not in ("image_space", "measurement_space"):
        raise _refused("vp_diffusion.latent_type", latent, "it should be image_space or measurement_space")
    if file.is_oracle:
        if not _is_number(rate) or rate not in (0, 1):
            raise _refused(key, rate, "unconditional_diffusion is of complete images: write 0 or 1")
        rate = 1 if mri else 0
        file.put("sample.draws", 1, "vp_diffusion.diffusion_model_type")
    else:
        if mri and latent == "image_space":
            raise _refused("vp_diffusion.latent_type", latent, "MRI is diffused in measurement_space; write that")
        if mri:
            file.put("data.mask.pattern", _pattern(file), "dataset.mask_pattern")
        else:
            file.one_of("dataset.mask_pattern", ("random_box",), "dataset.dataset_name is ffhq; ")
        if "setting.stochastic_loop" in file.leaves:
            file.put("sample.draws", file.get("setting.stochastic_loop"), "setting.stochastic_loop")
    file.put("data.mask.acceleration" if mri else "data.mask.drop", rate, key)
    noise = file.need("train.training_data_noiselevel", "the noise rho of the training data, 0.0 for none")
    size = file.need("vp_diffusion.image_size", "the side of the images in pixels")
    if type(size) is not int:
        raise _refused("vp_diffusion.image_size", size, "it should be a whole number of pixels")
    return f"{'fastMRI' if mri else 'photos'} of {size} px, {'R' if mri else 'p'} = {rate}, noise {noise}"


def _pattern(file: _File) -> str:
    """Which columns are kept off the centre."""
    patterns = {"randomly_cartesian": "random", "uniformly_cartesian": "uniform"}
    return patterns[file.one_of("dataset.mask_pattern", patterns, "dataset.dataset_name is fastmri; ")]


def _network(file: _File) -> None:
    """Channels and levels of the network, and the times that it is trained or used at."""
    channels = file.get("vp_diffusion.in_channels", 2 if file.is_mri else 3)
    for target in ("network.in_channels", *(() if file.is_mri else ("data.channels",))):
        file.put(target, channels, "vp_diffusion.in_channels")
    key, size = "vp_diffusion.channel_mult", file.leaves["vp_diffusion.image_size"]
    multiples = file.get(key, "")
    if multiples == "":
        if size not in CHANNEL_MULT:
            sizes = " and ".join(map(str, CHANNEL_MULT))
            raise _refused(key, "", f'empty is for image_size {sizes}, not {size}; write them out: "1,2,2"')
        multiples = CHANNEL_MULT[size]
    file.put("network.channel_mult", _whole_numbers(multiples), key)
    if (key := "vp_diffusion.attention_resolutions") in file.leaves:
        file.put("network.attention_resolutions", _whole_numbers(file.get(key)), key)
    key = "vp_diffusion.timestep_respacing"
    if (found := file.get(key)) is not None:
        steps = re.fullmatch("ddim([1-9][0-9]{0,3})", "ddim1000" if found == "" else str(found))
        if not steps or 1000 % int(steps[1]):
            raise _refused(key, found, "write ddim200, or another divisor of 1000; '' for all 1000")
        file.put("sample.steps" if file.samples else "diffusion.train_steps", int(steps[1]), key)
    if file.samples and (found := file.get("vp_diffusion.use_ddim", True)) is not True:
        reason = "samples are drawn by DDIM; write True, with ddim_eta 1.0 for the law of DDPM"
        raise _refused("vp_diffusion.use_ddim", found, reason)


def _whole_numbers(value: Any) -> Any:
    """From "1,1,2" to a list; what is none of numbers goes on as it is, to be refused by its field."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
    return [int(part) for part in parts] if all(str(part).isdecimal() for part in parts) else value


def _noise(file: _File) -> None:
    """SURE, which counts for noisy training data only."""
    noise, weight = file.leaves["train.training_data_noiselevel"], file.leaves.get("train.lr_SURE")
    if not _is_number(noise) or noise == 0:
        return
    if weight is not None:
        file.put("train.sure_weight", file.get("train.lr_SURE"), "train.lr_SURE")
    if weight != 0 and "train.tau_SURE" in file.leaves:
        file.put("train.sure_tau", file.get("train.tau_SURE"), "train.tau_SURE")


def _batches(file: _File) -> None:
    """Sizes of batches, and steps between checkpoints, which are images here."""
    keys = ("setting.batch_size", *(() if file.samples else ("setting.microbatch", "setting.save_interval")))
    for key in keys:
        value = file.get(key, 1)
        if type(value) is not int or (value < 1 and (key, value) != ("setting.microbatch", -1)):
            also = ", or -1 for whole batches" if key == "setting.microbatch" else ""
            raise _refused(key, value, f"it should be a whole number from 1 up{also}")
    if file.samples:
        if "setting.batch_size" in file.leaves:
            file.put("sample.batch_size", file.get("setting.batch_size"), "setting.batch_size")
        return
    batch, part = file.need("setting.batch_size", "images a step"), file.get("setting.microbatch", -1)
    file.put("train.batch_size", batch, "setting.batch_size")
    if (found := file.leaves.get("vp_diffusion.microbatch", -1)) not in (-1, part):
        raise _refused("vp_diffusion.microbatch", found, f"setting.microbatch is {part}; write -1 here")
    if 0 < part < batch:
        if batch % part:
            raise _refused("setting.microbatch", part, f"use a divisor of setting.batch_size {batch}")
        file.put("train.accumulate", batch // part, "setting.microbatch")
    if (key := "setting.save_interval") in file.leaves:
        file.put("train.checkpoint_images", file.get(key) * batch, key)


def _solves(file: _File) -> bool:
    """Whether an inverse problem is to be solved."""
    key = "setting.solve_inverse_problem"
    solves = file.get(key, False)
    if not isinstance(solves, bool):
        raise _refused(key, solves, "it should be True or False")
    if key not in file.leaves and "setting.inverse_problem_type" in file.leaves:
        raise ConfigError(f"{key}: missing; add True to solve setting.inverse_problem_type, or False to generate")
    return solves


def _problem(file: _File) -> str:
    """The inverse problem that the type names, whatever other blocks there are, and how it is solved; in words."""
    key = "setting.inverse_problem_type"
    kind = file.one_of(key, list(PROBLEMS))
    operator, name, _ = PROBLEMS[kind]
    if not operator:
        line = "{operator: motion_blur, blur_length: …, blur_angle: …}"
        raise _refused(key, kind, f"its kernel has no counterpart; write {line} in this library's layout")
    block = f"inverse_problems.{kind}"
    if (found := file.get(f"{block}.name", name)) != name:
        raise _refused(f"{block}.name", found, f"{key} is {kind}, which is {name}; make them agree")
    file.put("inverse_problem.operator", operator, key)
    if (level := "setting.measurement_noise_level") in file.leaves:
        file.put("inverse_problem.noise_std", file.get(level), level)
    _solver(file)
    if kind == "fastmri_reconstruction":
        rate = "dataset.inv_problem_acceleration_rate"
        law = {"kind": "cartesian", "acceleration": file.need(rate, "R of the mask to reconstruct from")}
        file.put("inverse_problem.mask", {**law, "pattern": _pattern(file)}, rate)
        return f"{kind} at R = {law['acceleration']}"
    return kind if kind == "colorization" else f"{kind} {_sizes(file, kind, block)}"


def _solver(file: _File) -> None:
    """How the problem is solved: by our method, whose settings are in two places."""
    if (found := file.get("setting.inverse_problem_solver", OUR_SOLVER)) != OUR_SOLVER:
        reason = f"another method than this library's; write {OUR_SOLVER} (others, measured: docs/studies/rivals.md)"
        raise _refused("setting.inverse_problem_solver", found, reason)
    own = f"inverse_problem_solvers.{OUR_SOLVER}"
    if (found := file.get(f"{own}.method", OUR_SOLVER)) != OUR_SOLVER:
        raise _refused(f"{own}.method", found, f"write {OUR_SOLVER}")
    key, draws = f"{own}.params.num_stochastics", file.leaves.get("setting.stochastic_loop")
    if (found := file.get(key, -1)) not in (-1, draws):
        if draws is not None:
            raise _refused(key, found, f"setting.stochastic_loop says {draws}; write -1 here")
        file.put("sample.draws", found, key)
    if (step := "setting.stepsize_likelihood") in file.leaves:
        file.put("sample.data_step", {"kind": "gradient", "gamma": file.get(step)}, step)


def _sizes(file: _File, kind: str, block: str) -> str:
    """What describes the operator on photos, from its block; returns it in words."""
    size, channels = file.leaves["vp_diffusion.image_size"], file.flat["network.in_channels"]
    if kind == "gaussian_blur":
        key = f"{block}.intensity"
        width, kernel = file.need(key, "the width of the blur in pixels"), file.get(f"{block}.kernel_size")
        if _is_number(width) and _is_number(kernel) and kernel < 6 * width:
            reason = f"it cuts off a Gaussian of width {width}; blur here is whole: 6 widths at least"
            raise _refused(f"{block}.kernel_size", kernel, reason)
        file.put("inverse_problem.blur_sigma", width, key)
        return f"of width {width} px"
    if kind == "super_resolution":
        key = f"{block}.scale_factor"
        file.put("inverse_problem.factor", file.need(key, "the factor"), key)
        shape = file.get(f"{block}.in_shape", [1, channels, size, size])
        if not isinstance(shape, list | tuple) or list(shape)[1:] != [channels, size, size]:
            raise _refused(f"{block}.in_shape", shape, f"images are {[1, channels, size, size]}; make them agree")
        return f"× {file.flat['inverse_problem.factor']}"
    is_box = kind == "box_inpainting"
    for name, wanted in (("mask_type", "box" if is_box else "random"), ("image_size", size)):
        if (found := file.get(f"{block}.mask_opt.{name}", wanted)) != wanted:
            raise _refused(f"{block}.mask_opt.{name}", found, f"elsewhere the file says {wanted}; make them agree")
    key = f"{block}.mask_opt.{'mask_len_range' if is_box else 'mask_prob_range'}"
    low, high = _range(file, key)
    if is_box and high != low + 1:
        raise _refused(key, (low, high), "holes here have one size: write [64, 65] for 64 pixels")
    if not is_box and low != high:
        raise _refused(key, (low, high), "the same share is dropped from all images here: write it twice")
    file.put("inverse_problem.hole" if is_box else "inverse_problem.keep", low if is_box else round(1 - low, 12), key)
    return f"with a hole of {low} px" if is_box else f"without {low:.0%} of the pixels"


def _range(file: _File, key: str) -> tuple[Any, Any]:
    """Two numbers."""
    found = file.need(key, "two numbers")
    if not isinstance(found, list | tuple) or len(found) != 2 or not all(_is_number(number) for number in found):
        raise _refused(key, found, "it should be two numbers")
    return found[0], found[1]
