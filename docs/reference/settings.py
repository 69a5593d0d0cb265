"""Write settings.md beside this file, the page of all settings, from msm.config.schema. Takes no arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from msm.config.schema import Config
from msm.system.files import write_text

PAGE = Path(__file__).with_name("settings.md")
BEGIN = """# All settings

A config is a YAML file of these blocks; `block.key=value` on the command line changes one of them, and
`"block={key: value, …}"` replaces a whole block. `null` means automatic: a run's `config.yaml` holds what was asked,
its `resolved.yaml` what ran. Made by `python docs/reference/settings.py` from the models that check the files.
"""
WORDS = {"integer": "whole number", "boolean": "true or false", "string": "text", "array": "list", "null": "null"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "multiple of"}


def kind(schema: dict[str, Any], places: dict[str, str]) -> str:
    """What a value may be, from its JSON schema; `places` says where the page describes a model."""
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(kind(each, places) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "oneOf" in schema:
        return f"a block, see `{places[schema['oneOf'][0]['$ref'].rpartition('/')[2]]}`"
    bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if name in schema]
    word = "path" if schema.get("format") == "path" else WORDS.get(schema["type"], schema["type"])
    return ", ".join([word, *bounds])


def models(annotation: Any) -> list[type[BaseModel]]:
    """The blocks that may stand in a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def blocks(place: str, annotation: Any, places: dict[str, str]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Name and model of the blocks that may stand in a place, each with those inside it; each model once."""
    found = [model for model in models(annotation) if model.__name__ not in places]
    places.update({model.__name__: place for model in found})
    for model in found:
        tags = [name for name in ("kind", "operator") if name in model.model_fields and len(found) > 1]
        yield ", ".join([place, *(f"{tag}: {model.model_fields[tag].default}" for tag in tags)]), model
        for key, field in model.model_fields.items():
            yield from blocks(f"{place}.{key}", field.annotation, places)


def tables() -> str:
    """The page, in Markdown."""
    lines, places = [BEGIN], dict[str, str]()
    fields = Config.model_fields.items()
    for name, model in [block for key, field in fields for block in blocks(key, field.annotation, places)]:
        summary = re.sub(r" \(SPEC §\d+\)", "", (model.__doc__ or "").split("\n")[0])
        lines += [f"## {name}", "", summary, "", "| key | values | default | |", "|---|---|---|---|"]
        schema = model.model_json_schema()
        for key, field in schema["properties"].items():
            default = "required" if key in schema.get("required", []) else f"`{json.dumps(field.get('default'))}`"
            text = field.get("description", "").replace("|", r"\|")
            lines.append(f"| `{key}` | {kind(field, places)} | {default} | {text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, tables())
