"""Settings of a run, read from YAML and written back to it; `msm.config.schema` says what they are.

A mistake ends in a `ConfigError` of one line: the file, the dotted field, what was found, what to do.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import ConfigError, one_line
from ..system.console import note
from ..system.places import config_file
from .measured import AnyMask, AnyProblem, DataConfig
from .published import read
from .sampled import OF_SAMPLER, AnyStep, SampleConfig
from .schema import Config, Setting
from .trained import DiffusionConfig, NetworkConfig, TrainConfig
from .yaml_text import dump, parse

__all__ = ["Config", "ConfigError", "dump_asked", "dump_config", "load_config"]

Place = tuple[str | int, ...]


def _tagged(union: Any, tag: str, *place: str) -> dict[Place, type[BaseModel]]:
    """The models of a union, which pydantic finds at the place with the tag behind."""
    return {(*place, model.model_fields[tag].default): model for model in get_args(union)}


_BLOCKS: dict[Place, type[BaseModel]] = {
    (): Config,
    ("setting",): Setting,
    ("data",): DataConfig,
    **_tagged(AnyMask, "kind", "data", "mask"),
    ("network",): NetworkConfig,
    ("diffusion",): DiffusionConfig,
    ("train",): TrainConfig,
    ("sample",): SampleConfig,
    **_tagged(AnyStep, "kind", "sample", "data_step"),
    **_tagged(AnyProblem, "operator", "inverse_problem"),
    **_tagged(AnyMask, "kind", "inverse_problem", "undersampling", "mask"),
}
_MOVED = {  # settings of earlier versions: where they are now
    "inverse_problem.step_size": "sample.data_step, {kind: gradient, gamma: …} or {kind: proximal}",
    "inverse_problem.likelihood_weight": "sample.data_step.likelihood_weight",
    "inverse_problem.proximal_iterations": "sample.data_step.iterations",
}
_CHOSEN = {*OF_SAMPLER, "masks", "warm_start", "data_step"}  # by sample.preset


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, in this library's layout or the published one, and apply overrides.

    Args:
        path: the YAML file, or what `config_file` takes for one.
        overrides: "block.key=value" in this library's names, the value written as in YAML: "train.lr=2e-5",
            "network.channel_mult=[1, 2, 2]", "data.mask={kind: box, drop: 0.2}", "data.limit=null". What comes later
            counts; "sample.preset=best" replaces all that the preset chooses.

    Returns:
        The checked settings.

    Raises:
        ConfigError: anything the user can mend, in one line.
    """
    raw, origin, told = read(config_file(Path(path)))
    if told:
        note(one_line(f"{path}: {told}"))
    for override in overrides:
        raw = _override(raw, override, f"{path} (override {override})")
        if override.partition("=")[0].strip() == "sample.preset":
            kept = {key: value for key, value in raw["sample"].items() if key not in _CHOSEN}
            raw = {**raw, "sample": kept}  # a preset on the command line beats the file
    for field, new in _MOVED.items():
        block, _, name = field.partition(".")
        if isinstance(raw.get(block), dict) and name in raw[block]:
            raise ConfigError(f"{path}: {field}: has moved; write {new}")
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_tell(error, str(path), overrides, origin)) from error


def dump_config(config: Config) -> str:
    """Write all settings, automatic ones as found, as YAML that `load_config` reads back to an equal Config."""
    return dump(config.model_dump(mode="json"))


def dump_asked(config: Config) -> str:
    """Write what was asked for, as YAML that `load_config` reads back to an equal Config."""
    return dump(config.model_dump(mode="json", exclude_unset=True))


def _override(raw: dict[str, Any], override: str, where: str) -> dict[str, Any]:
    """A copy of the settings with one "block.key=value" put in."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{where}: found no block.key=value; write for example train.lr=2e-5")
    if text.strip()[:1] in ("{", "[") and text.strip()[-1:] not in ("}", "]"):
        raise ConfigError(f'{where}: the value ends too early; put the whole argument in quotes: "{name}={text} ..."')

    def put(block: Any, keys: list[str], done: str) -> dict[str, Any]:
        if not isinstance(block, dict | None):
            found = reprlib.repr(block)
            raise ConfigError(f"{where}: {done}: found {found}, which has no keys; override {done} itself")
        block = block or {}
        key, *rest = keys
        value = put(block.get(key), rest, f"{done}.{key}".lstrip(".")) if rest else parse(text, where)
        return {**block, key: value}

    return put(raw, keys, "")


_UNKNOWN = ("extra_forbidden", "invalid_key")


def _tell(error: ValidationError, path: str, overrides: Sequence[str], origin: Mapping[str, str]) -> str:
    """One line on the mistake that explains the others best: an unknown key if there is one."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda e: e["type"] not in _UNKNOWN)
    field, reason = _explain(first)
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        if f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}."):
            path = f"{path} (override {override})"
            break
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    for ours, published in origin.items():
        if f"{field}.".startswith(f"{ours}."):
            field = published + field.removeprefix(ours)
            break
    return f"{path}: {field or 'a key'}: {reason}{more}"


def _explain(error: ErrorDetails) -> tuple[str, str]:
    """The dotted field, and what was found and what to do."""
    branch = re.compile(r"constrained-float$|literal\[")  # pydantic adds the branch of a union
    loc = tuple(part for part in error["loc"] if not branch.match(str(part)))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "refused":
        loc += tuple(context["field"].split("."))
    block, key = loc[:-1], str(loc[-1]) if loc else ""
    about = _BLOCKS[block].model_fields.get(key) if block in _BLOCKS else None
    field, hint = _dotted(loc), f" ({about.description})" if about and about.description else ""
    if kind == "refused":
        return field, context["reason"] + hint
    if kind in _UNKNOWN:
        return field, f"unknown key; {_nearest(loc)}"
    if kind == "missing":
        return field, f"missing; add it{hint}"
    tag = str(context.get("discriminator", "")).strip("'")
    if kind == "union_tag_not_found":
        tags = [str(block[-1]) for block in _BLOCKS if block and block[:-1] == loc]
        return f"{field}.{tag}", f"missing; add it: {', '.join(tags)}"
    if kind == "union_tag_invalid":
        return f"{field}.{tag}", f"found '{context['tag']}'; it should be one of {context['expected_tags']}"
    if kind in ("model_type", "model_attributes_type"):
        should = "be a block of keys"
    elif kind == "path_type":
        should = "be a path"
    else:
        should = re.sub(r"^(Input|\w+) should |, (unable|got) .*|, exceeded .*", "", error["msg"])
    return field, f"found {reprlib.repr(error['input'])}; it should {should}{hint}"


def _dotted(loc: Place) -> str:
    """The field as the user writes it, without the tags that pydantic adds to its place."""
    return ".".join(str(part) for i, part in enumerate(loc) if not i or loc[: i + 1] not in _BLOCKS)


def _nearest(loc: Place) -> str:
    """What an unknown key was meant to be: the same name in another block, or one alike in its own."""
    block, key = loc[:-1], str(loc[-1])
    names = list(_BLOCKS[block].model_fields) if block in _BLOCKS else []
    places = [_dotted((*other, key)) for other, model in _BLOCKS.items() if key in model.model_fields]
    elsewhere = [place for place in places if place != _dotted(loc)]  # not: in another kind of the same block
    near = get_close_matches(key.lower(), names, n=1)
    if elsewhere and "mask" not in block:
        return f"did you mean {' or '.join(dict.fromkeys(elsewhere))}?"
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
