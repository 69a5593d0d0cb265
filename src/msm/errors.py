"""What a user can mend: every message is one line that says where, what was found, and what to do; all faults of a
config are one message, a line each.

Any other exception, a plain `ValueError` too, is a mistake in a program, and ends it with a traceback.
"""

from importlib import import_module
from typing import Any


def one_line(text: str) -> str:
    """Text of any origin as one printable line."""
    shown = (c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    return " ".join("".join(shown).split())


class MsmError(ValueError):
    """A mistake that the user can mend, told in one line; several, in a line each below it."""

    def __init__(self, message: str, *each: str) -> None:
        super().__init__("\n  ".join(one_line(text) for text in (message, *each)))


class DataError(MsmError):
    """A file or folder that cannot be used."""


class ConfigError(MsmError):
    """A setting or an argument that cannot be used."""


class TrainingError(MsmError):
    """Training cannot go on."""


class MissingPackage(MsmError):
    """An optional package is not installed."""


def optional(module: str, purpose: str, extra: str) -> Any:
    """A module of an optional package.

    Args:
        module: its full name.
        purpose: what it is needed for.
        extra: the extra of this package that installs it.

    Raises:
        MissingPackage: it is not there.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise MissingPackage(f"{purpose} needs {package}: pip install 'msm-diffusion[{extra}]'") from error
