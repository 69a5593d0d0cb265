"""What is wrong with settings, told so that it can be mended: each fault with its field, what was found, what to do."""

import re
import reprlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .measured import AnyMask, AnyProblem, DataConfig
from .sampled import AnyStep, SampleConfig
from .schema import Config, Setting
from .trained import DiffusionConfig, NetworkConfig, TrainConfig

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
_UNKNOWN = ("extra_forbidden", "invalid_key")


class Fault(NamedTuple):
    """What is wrong with one field."""

    keys: tuple[str, ...]
    """Of the blocks that lead to it, and its own."""
    reason: str
    """What was found, and what to do."""

    @property
    def field(self) -> str:
        """Dotted, as the user writes it."""
        return ".".join(self.keys)


def check(raw: Mapping[str, Any]) -> Config | list[Fault]:
    """The settings, or all that is wrong with them.

    What one fault hides from the checks comes to light once it is mended: an unknown key is taken for the one it was
    meant to be, any other fault is left out, and the rest is checked again, as long as that can be judged.

    Args:
        raw: settings in this library's layout, unchecked.
    """
    found: dict[tuple[str, ...], str] = {}
    values = dict(raw)
    for field, new in _MOVED.items():
        block, _, name = field.partition(".")
        if isinstance(values.get(block), dict) and name in values[block]:
            found[block, name] = f"has moved; write {new}"
            values = _without(values, (block, name))
    doubtful: set[str] = set()  # blocks of which a value is gone: checks of several fields together say nothing then
    while True:
        try:
            config = Config.model_validate(values)
        except ValidationError as error:
            values, told = _left(values, error.errors(include_url=False), found, doubtful)
            if told:
                continue
        else:
            if not found:
                return config
        return [Fault(keys, reason) for keys, reason in found.items()]


def _left(
    values: dict[str, Any], errors: list[ErrorDetails], found: dict[tuple[str, ...], str], doubtful: set[str]
) -> tuple[dict[str, Any], bool]:
    """The settings without what is wrong, which is added to what was found, and whether there was anything new."""
    told, before, meant, gone = False, bool(found), set[tuple[str, ...]](), set[str]()
    errors = sorted(errors, key=lambda e: e["type"] not in _UNKNOWN)  # what they explain is not told again
    for error, (keys, reason) in [(each, fault) for each in errors for fault in _explain(each)]:
        hides = {*keys[:1], "data", "inverse_problem"} & doubtful
        if keys in found or keys in meant or (before and hides and error["type"] in ("refused", "missing")):
            continue
        found[keys], told = reason, True
        if not keys:
            continue
        near = _near(error["loc"]) if error["type"] in _UNKNOWN else None
        values, value = _without(values, keys), _at(values, keys)
        if near is not None and _at(values, (*keys[:-1], near)) is None:
            values = _with(values, (*keys[:-1], near), value)
            meant.add((*keys[:-1], near))
        elif error["type"] != "refused":
            gone |= {keys[0], *(place.partition(".")[0] for place in _elsewhere(error["loc"]))}
    doubtful |= gone
    return values, told


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = {str(k): v for k, v in values.items()}.get(key) if isinstance(values, dict) else None
    return values


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """A copy without what is at the keys, or, for a number of a list, without the list."""
    key, *rest = keys
    inner = values.get(key)
    if rest and isinstance(inner, dict):
        return {**values, key: _without(inner, tuple(rest))}
    return {k: v for k, v in values.items() if str(k) != key}


def _with(values: dict[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = keys
    return {**values, key: _with(values[key], tuple(rest), value) if rest else value}


def _explain(error: ErrorDetails) -> list[Fault]:
    """What an error says of one field, or of several."""
    if error["type"] != "refused":
        return [_of_field(error)]
    faults = []
    for field, reason in error["ctx"]["faults"]:
        loc = (*error["loc"], *field.split("."))
        faults.append(Fault(_keys(loc), reason + _about(loc)))
    return faults


def _of_field(error: ErrorDetails) -> Fault:
    """What an error says of the field where it is found."""
    branch = re.compile(r"constrained-float$|literal\[")  # pydantic adds the branch of a union
    loc = tuple(part for part in error["loc"] if not branch.match(str(part)))
    kind, context = error["type"], error.get("ctx", {})
    keys, hint = _keys(loc), _about(loc)
    if kind in _UNKNOWN:
        return Fault(keys, f"unknown key; {_nearest(loc)}")
    if kind == "missing":
        return Fault(keys, f"missing; add it{hint}")
    tag = str(context.get("discriminator", "")).strip("'")
    if kind == "union_tag_not_found":
        tags = [str(block[-1]) for block in _BLOCKS if block and block[:-1] == loc]
        return Fault((*keys, tag), f"missing; add it: {', '.join(tags)}")
    if kind == "union_tag_invalid":
        should = f"found '{context['tag']}'; it should be one of {context['expected_tags']}"
        return Fault((*keys, tag), should)
    if kind in ("model_type", "model_attributes_type"):
        should = "be a block of keys, in quotes on the command line: " + f'"{".".join(keys)}={{key: value, …}}"'
    elif kind == "path_type":
        should = "be a path"
    else:
        should = re.sub(r"^(Input|\w+) should |, (unable|got) .*|, exceeded .*", "", error["msg"])
    return Fault(keys, f"found {reprlib.repr(error['input'])}; it should {should}{hint}")


def _about(loc: Place) -> str:
    """What a field is for."""
    about = _BLOCKS[loc[:-1]].model_fields.get(str(loc[-1])) if loc and loc[:-1] in _BLOCKS else None
    return f" ({about.description})" if about and about.description else ""


def _keys(loc: Place) -> tuple[str, ...]:
    """The keys as the user writes them, without the tags that pydantic adds to their place."""
    return tuple(str(part) for i, part in enumerate(loc) if not i or loc[: i + 1] not in _BLOCKS)


def _near(loc: Place) -> str | None:
    """The key of the same block that an unknown one is most like."""
    names = list(_BLOCKS[loc[:-1]].model_fields) if loc[:-1] in _BLOCKS else []
    return next(iter(get_close_matches(str(loc[-1]).lower(), names, n=1)), None)


def _elsewhere(loc: Place) -> list[str]:
    """Where else there is a key of this name, dotted."""
    places = [_keys((*block, loc[-1])) for block, model in _BLOCKS.items() if loc[-1] in model.model_fields]
    return [".".join(keys) for keys in dict.fromkeys(places) if keys != _keys(loc)]  # not: in another kind of its block


def _nearest(loc: Place) -> str:
    """What an unknown key was meant to be: the same name in another block, or one alike in its own."""
    elsewhere, near = _elsewhere(loc), _near(loc)
    if elsewhere and "mask" not in loc[:-1]:
        return f"did you mean {' or '.join(elsewhere)}?"
    names = _BLOCKS[loc[:-1]].model_fields if loc[:-1] in _BLOCKS else ()
    return f"did you mean '{near}'?" if near else f"known here: {', '.join(names)}"
