"""Zip archives (.npz, PyTorch's .pt): what they unpack to is known before they are."""

import zipfile
from pathlib import Path
from typing import IO

from ..errors import DataError


def refuse_packed(source: Path | IO[bytes], where: str, largest: int = 1) -> None:
    """Refuse an archive that takes far more memory than its file has bytes, before any is taken; others pass.

    Args:
        source: the file.
        where: its name, for the message.
        largest: so many times the file's size it may unpack to; 1 if nothing in it is packed.

    Raises:
        DataError: it unpacks to more, or its table of contents is damaged.
    """
    if not zipfile.is_zipfile(source):
        return
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:  # what zipfile raises
        raise DataError(f"{where}: damaged ({error}); copy or make it again") from error
    claimed, held = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    size = source.stat().st_size if isinstance(source, Path) else source.seek(0, 2)
    if not isinstance(source, Path):
        source.seek(0)
    if claimed > largest * min(held, size):
        raise DataError(f"{where}: unpacks to {claimed:.3g} bytes, the file holds {size:.3g}; save it without packing")
