"""What a user can mend: every message is one line that says where, what was found, and what to do; all faults of a
config are one message, a line each.

Any other exception, a plain `ValueError` too, is a mistake in a program, and ends it with a traceback.
"""

import errno
from importlib import import_module
from typing import Any

OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG),
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPIPE),
}


def one_line(text: str) -> str:
    """Text of any origin as one printable line."""
    return " ".join(printable(" ".join(text.split())).split())


def printable(text: str) -> str:
    """Text of any origin, without what would steer a terminal, or what it has no letters for."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else ascii(c)[1:-1] for c in text)


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


def is_damage(error: BaseException) -> bool:
    """Whether what failed to read a file may be the file's fault: rights, handles, memory and disks are not."""
    return not (isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in OF_THE_MACHINE))


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
