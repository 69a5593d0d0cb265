"""Write settings.md beside this file, the page of all settings, from msm.config.schema. Takes no arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from msm.config.schema import AnyMask, Config
from msm.output.files import write_text

PAGE = Path(__file__).with_name("settings.md")
BEGIN = """# All settings

A config is a YAML file of these blocks; `block.key=value` on the command line changes one of them, and
`"block={key: value, …}"` replaces a whole block. A run's `config.yaml` holds every value that ran. Made by
`python docs/reference/settings.py` from the models that check the files.
"""
WORDS = {"integer": "whole number", "boolean": "true or false", "string": "text", "array": "list", "null": "null"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "multiple of"}


def kind(schema: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(kind(each) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema or "oneOf" in schema:
        return "a mask, see `data.mask`"
    bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if name in schema]
    word = "path" if schema.get("format") == "path" else WORDS.get(schema["type"], schema["type"])
    return ", ".join([word, *bounds])


def blocks() -> Iterator[tuple[str, type[BaseModel]]]:
    """The blocks of a config by name, each kind of mask after the block of the data."""
    for name, field in Config.model_fields.items():
        (model,) = [each for each in (field.annotation, *get_args(field.annotation)) if hasattr(each, "model_fields")]
        yield name, model
        if name == "data":
            yield from ((f"data.mask, kind: {mask.model_fields['kind'].default}", mask) for mask in get_args(AnyMask))


def tables() -> str:
    """The page, in Markdown."""
    lines = [BEGIN]
    for name, model in blocks():
        summary = re.sub(r" \(SPEC §\d+\)", "", (model.__doc__ or "").split("\n")[0])
        lines += [f"## {name}", "", summary, "", "| key | values | default | |", "|---|---|---|---|"]
        schema = model.model_json_schema()
        for key, field in schema["properties"].items():
            default = "required" if key in schema.get("required", []) else f"`{json.dumps(field.get('default'))}`"
            lines.append(f"| `{key}` | {kind(field)} | {default} | {field.get('description', '')} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, tables())
