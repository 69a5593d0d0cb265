"""Settings of a run, read from YAML and written back to it; `msm.config.schema` says what they are.

A mistake ends in a `ConfigError` of one line: the file, the dotted field, what was found, what to do; several in a line
each.
"""

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, one_line
from ..system import manifest
from ..system.console import note
from ..system.places import config_file
from .faults import Fault, check
from .published import read
from .sampled import OF_SAMPLER
from .schema import Config
from .yaml_text import dump, parse

__all__ = ["Config", "ConfigError", "dump_asked", "dump_config", "load_config"]

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
        ConfigError: anything the user can mend, all of it, a line each.
    """
    file = config_file(Path(path))
    manifest.check(file, "settings may be changed on the command line, or in a copy elsewhere")
    raw, origin, read_as = read(file)
    if read_as:
        note(one_line(f"{path}: {read_as}"))
    for override in overrides:
        raw = _override(raw, override, f"{path} (override {override})")
        if override.partition("=")[0].strip() == "sample.preset":
            kept = {key: value for key, value in raw["sample"].items() if key not in _CHOSEN}
            raw = {**raw, "sample": kept}  # a preset on the command line beats the file
    config = check(raw)
    if isinstance(config, Config):
        return config
    mistakes = {
        (field, where): reason for field, where, reason in (_tell(f, overrides, origin) for f in reversed(config))
    }
    if len(mistakes) == 1:
        ((field, where), reason) = next(iter(mistakes.items()))
        raise ConfigError(f"{path}{where}: {field}: {reason}")
    lines = [f"{field}{where}: {reason}" for (field, where), reason in reversed(mistakes.items())]
    raise ConfigError(f"{path}: {len(lines)} mistakes:", *lines)


def dump_config(config: Config) -> str:
    """Write all settings, automatic ones as found, as YAML that `load_config` reads back to an equal Config."""
    return dump(config.model_dump(mode="json"))


def dump_asked(config: Config) -> str:
    """Write what was asked for, as YAML that `load_config` reads back to an equal Config."""
    return dump(config.model_dump(mode="json", exclude_unset=True))


def _override(raw: dict[str, Any], override: str, where: str) -> dict[str, Any]:
    """A copy of the settings with one "block.key=value" put in; paths are taken as they are."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        example = f"setting.dataset_dir={override}" if os.path.exists(override) else "train.lr=2e-5"
        raise ConfigError(f"{where}: found no block.key=value; write for example {example}")
    if text.strip()[:1] in ("{", "[") and text.strip()[-1:] not in ("}", "]"):
        raise ConfigError(f'{where}: the value ends too early; put the whole argument in quotes: "{name}={text} ..."')

    def put(block: Any, keys: list[str], done: str) -> dict[str, Any]:
        if not isinstance(block, dict | None):
            found = reprlib.repr(block)
            raise ConfigError(f"{where}: {done}: found {found}, which has no keys; override {done} itself")
        block = block or {}
        key, *rest = keys
        value = put(block.get(key), rest, f"{done}.{key}".lstrip(".")) if rest else wanted
        return {**block, key: value}

    is_path = len(keys) == 2 and keys[0] == "setting" and text.strip() not in ("", "~", "null")
    wanted = text if is_path and text[0] not in "'\"" else parse(text, where)  # "my: #1" is a folder, not YAML
    return put(raw, keys, "")


def _tell(fault: Fault, overrides: Sequence[str], origin: Mapping[str, str]) -> tuple[str, str, str]:
    """The field as the file has it, the override that its fault comes from, if any, and the reason."""
    field, where = fault.field, ""
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        if f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}."):
            where = f" (override {override})"
            break
    for ours, published in origin.items():
        if f"{field}.".startswith(f"{ours}."):
            field = published + field.removeprefix(ours)
            break
    return field or "a key", where, fault.reason
