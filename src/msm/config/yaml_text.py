"""YAML as data: plain values in, plain values out.

`parse` knows plain values and `!!python/tuple`; every other tag is refused, so nothing in a file can run. Numbers and
truth values are those of YAML 1.2: 1e-5 is a number, `no` is text. A colon needs no space behind it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

_YAML = "tag:yaml.org,2002:"
SCALARS = {  # how plain text of each type looks, and how it begins
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


DEEPEST = 50  # nodes within nodes
MOST_ALIASES = 16  # each may double what is there


class _Loader(yaml.SafeLoader):
    """Plain values, tuples, no key twice; no other tag."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name; filled below)
    depth = aliases = 0  # of the node at hand; so far

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Bounded here: how deep Python itself goes, other libraries change."""
        if self.depth >= DEEPEST:
            raise RecursionError
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MOST_ALIASES:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "more aliases than a config needs; write it out", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            node.value = [self.spaced(key, value) for key, value in node.value]
        seen: set[str] = set()
        for key, _ in getattr(node, "value", []):
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' appears twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)

    def spaced(self, key: yaml.Node, value: yaml.Node) -> tuple[yaml.Node, yaml.Node]:
        """{operator:box} is {operator: box}: YAML takes the former for one name without a value, as no setting is."""
        plain = isinstance(key, yaml.ScalarNode) and key.style is None and ":" in key.value
        if not plain or not isinstance(value, yaml.ScalarNode) or value.value:
            return key, value
        name, _, text = key.value.partition(":")
        tag = self.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        mark = key.start_mark
        return yaml.ScalarNode(f"{_YAML}str", name, mark), yaml.ScalarNode(tag, text, mark)

    def construct_tuple(self, node: yaml.Node) -> tuple[Any, ...]:
        return tuple(self.construct_sequence(node, deep=True))  # type: ignore[arg-type]

    def refuse(self, node: yaml.Node) -> None:
        reason = f"the tag '{node.tag.replace(_YAML, '!!')}' is refused, files are never run"
        raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes what either our reader or a YAML 1.1 reader would not take for text."""


for _type, (_pattern, _first) in SCALARS.items():
    for _each in (_Loader, _Dumper):
        _each.add_implicit_resolver(_YAML + _type, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_YAML + "python/tuple", _Loader.construct_tuple)
_Loader.add_constructor(None, _Loader.refuse)


def parse(text: str, where: str) -> Any:
    """Read one YAML document as plain values.

    Args:
        text: the document.
        where: what it is, for errors.

    Returns:
        None, numbers, text, lists, tuples and dictionaries.

    Raises:
        ConfigError: text that is not such a document.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: it builds plain values only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        reason = f"{place}{error.problem or error.context}; mend the YAML there"
    except RecursionError:
        reason = "the YAML is nested too deeply; a config has two or three levels"
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"not valid YAML ({error}); mend it"
    raise ConfigError(f"{where}: {reason}")


def dump(values: Mapping[str, Any]) -> str:
    """Write plain values as YAML that `parse` and any other YAML reader read back alike."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        ConfigError: if there is none.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        reason = "no such file; check the path"
    except IsADirectoryError:
        reason = "is a folder; name the YAML file in it"
    except UnicodeDecodeError:
        reason = "is not a text file; name a YAML file"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error}); check the path"
    raise ConfigError(f"{path}: {reason}")
