"""What a user can mend: every message is one line that says where, what was found, and what to do."""

from __future__ import annotations


class DataError(ValueError):
    """A file that cannot be used; the message is one line: file, what was found, what to do."""


class ConfigError(ValueError):
    """A mistake the user can mend, told in one line."""

    def __init__(self, message: str) -> None:
        shown = (c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in message)
        super().__init__(" ".join("".join(shown).split()))


class TrainingError(ValueError):
    """Training cannot go on; the message is one line."""
