"""One file to one picture: what is stored how, on one scale, and what of it is missing.

Black is 0 and white 255 here, whatever the file calls them. Each thing done that could have been done otherwise is
counted in an `Account`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from ..errors import DataError, is_damage
from .folder import Account

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # whatever a file is named: Pillow gives EPS to Ghostscript, a program
ORIENTATION, SUBFILE, GDAL_NODATA = 274, 254, 42113  # tags of Exif and TIFF
NOT_WHOLE = 5  # bits of SUBFILE: a smaller copy, or a mask, of another page
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
GREY = ("1", "L", "LA", "La", "I", "F")

Range = tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """How files are read.

    Args:
        channels: 3 (RGB) or 1 (grey).
        value_range: what is black and white where values have more than 8 bits; None: 0 and the largest number of 16
            bits, or 0 and 1 for floating point.
        complete: whether nothing may be missing: transparency is put on white, NaN refused.
    """

    channels: int
    value_range: Range | None = None
    complete: bool = True


@dataclass(frozen=True)
class Picture:
    """A decoded file, upright.

    Args:
        bands: its colours, or one band of grey, of mode L or F, on the scale 0 … 255.
        there: (H, W), bool: what the file says is there, opaque, finite and not its no-data value.
    """

    bands: tuple[Image.Image, ...]
    there: np.ndarray


def decode(path: Path, rules: Rules, account: Account, measured: np.ndarray | None = None) -> Picture:
    """Read an image.

    Args:
        path: file of one of `FORMATS`, of 8 or 16 bits or of floating point; or a NumPy array (H, W) or (H, W, 3).
        rules: how.
        account: is told what was done.
        measured: what a mask beside it says is there (H, W), bool.

    Raises:
        DataError: if it is no readable image, holds several, or is not of its mask's size.
    """
    try:
        if path.suffix.lower() == ".npy":
            return _of_array(_load(path), None, rules, account, measured)
        try:
            with Image.open(path, formats=FORMATS) as file:
                return _of_image(file, rules, account, measured)
        except UnidentifiedImageError:
            if path.suffix.lower() not in (".tif", ".tiff"):
                raise
            return _of_array(*_read_tiff(path), rules, account, measured)  # floating point in several channels
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # the decoders of damaged files raise whatever they stumble over
        if not is_damage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable image ({reason}); mend or remove it") from None


def _of_image(file: Image.Image, rules: Rules, account: Account, measured: np.ndarray | None) -> Picture:
    """The picture of an open file."""
    _check_pages(file, account)
    done, no_data = account.done, None
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        no_data = file.tag_v2.get(GDAL_NODATA)
    deep = file.mode[0] != "I" and ";16" in str(getattr(file, "tile", ""))
    done["turned upright by their Exif"] += file.getexif().get(ORIENTATION, 1) in range(2, 9)
    image = ImageOps.exif_transpose(file)
    transparent = image.info.get("transparency") if image.mode[0] == "I" else None
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _of_array(np.array(image), transparent if no_data is None else no_data, rules, account, measured)
    done["with 16 bits a colour, read with 8"] += deep
    done["of CMYK, made RGB without a colour profile"] += image.mode == "CMYK"
    _tell_colours(image.mode in GREY, rules, account)
    there = _with_mask(np.ones((image.height, image.width), dtype=bool), measured)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        if rules.complete:
            done["with transparency, put on white"] += bool((alpha < 255).any())
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        else:
            there &= alpha == 255
            done["with partly transparent pixels, taken for missing"] += bool(((alpha > 0) & (alpha < 255)).any())
    image = image.convert("RGB" if rules.channels == 3 else "L")
    if no_data is not None and not rules.complete:
        there &= _differs(np.array(image).reshape(*there.shape, -1), no_data)
    return Picture(image.split(), there)


def _check_pages(file: Image.Image, account: Account) -> None:
    """Refuse a file of several images; smaller copies of a page, and previews of cameras, are none."""
    number = getattr(file, "n_frames", 1)
    if file.format == "MPO":
        account.done["with further pictures in the file (MPO), of which the first is read"] += number > 1
        return
    if isinstance(file, TiffImagePlugin.TiffImageFile) and number > 1:
        whole = 0
        for page in range(number):
            file.seek(page)
            whole += not file.tag_v2.get(SUBFILE, 0) & NOT_WHOLE
        number = whole
        file.seek(0)
    if number > 1:
        raise ValueError(_several(number))


def _several(number: int) -> str:
    return f"{number} images in one file, of which none may be passed over: save each as a file"


def _load(path: Path) -> np.ndarray:
    """A NumPy array, opened: its size is checked before it is read."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_size(array.size)
    return array


def _read_tiff(path: Path) -> tuple[np.ndarray, str | None]:
    """A TIFF file that Pillow does not read, its colours last; and its no-data value."""
    with tifffile.TiffFile(path) as file:
        file.pages.useframes = False  # every page is read with its tags
        pages = [
            page for page in file.pages if isinstance(page, tifffile.TiffPage) and not page.subfiletype & NOT_WHOLE
        ]
        if len(pages) != 1:
            raise ValueError(_several(len(pages)))
        page = pages[0]
        _check_size(page.size)
        array, tag = page.asarray(), page.tags.get(GDAL_NODATA)
        separate = array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        return np.moveaxis(array, 0, -1) if separate else array, tag and tag.value


def _check_size(number: int) -> None:
    """As Pillow does: a small file must not claim all memory."""
    limit = 3 * (Image.MAX_IMAGE_PIXELS or number)
    if number > limit:
        raise ValueError(f"{number} values, more than {limit}: cut it into smaller images")


def _of_array(
    array: np.ndarray, no_data: float | str | None, rules: Rules, account: Account, measured: np.ndarray | None
) -> Picture:
    """The picture of an array (H, W), (H, W, 1 or 3) or (1 or 3, H, W)."""
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
        account.done["with the colours first"] += 1
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3)) or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape}: neither (H, W) nor (H, W, 3)")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"values of type {array.dtype}, which are no brightness")
    values = array.reshape(*array.shape[:2], -1)
    there = _with_mask(np.isfinite(values).all(-1), measured)
    if no_data is not None:
        there &= _differs(values, no_data)
    if rules.complete and not there.all():
        missing = "NaN" if no_data is None else f"NaN, or the value {no_data} that stands for no data"
        raise ValueError(f"holds {missing}; data.kind masked takes these pixels for missing")
    values = _scaled(values, there, rules, account)
    _tell_colours(values.shape[-1] == 1, rules, account)
    if values.shape[-1] == 3 and rules.channels == 1:
        values = values @ LUMA[:, None]
    return Picture(tuple(Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(values, -1, 0)), there)


def _scaled(values: np.ndarray, there: np.ndarray, rules: Rules, account: Account) -> np.ndarray:
    """Values (H, W, C) on the scale 0 … 255, float32, 0 where nothing is there."""
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    usual = (0.0, 1.0) if kind in "bf" else (0.0, 255.0) if kind == "u" and bits == 8 else (0.0, 65535.0)
    low, high = usual if rules.value_range is None or usual[1] == 255 else rules.value_range
    found = values[there]
    if found.size and not low <= found.min() <= found.max() <= high:
        if rules.value_range is None:
            said = f"values from {found.min():g} to {found.max():g}, beyond {low:g} to {high:g}"
            raise ValueError(f"{said}: set data.value_range to what is black and white, [low, high]")
        account.done["with values beyond data.value_range, clipped"] += 1
    if kind == "f" or (low, high) != usual:
        account.done[f"where black is {low:g} and white {high:g}"] += 1
    return ((np.where(there[..., None], values, low).astype(np.float32) - low) * 255 / (high - low)).clip(0, 255)


def _with_mask(there: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """What is there by the file and by the mask beside it, both (H, W), bool."""
    if measured is not None and measured.shape != there.shape:
        mask, photo = (f"{height}×{width}" for height, width in (measured.shape, there.shape))
        raise DataError(f"is {photo}, its mask {mask}; a mask has the size of its photo")
    return there if measured is None else there & measured


def _differs(values: np.ndarray, no_data: float | str) -> np.ndarray:
    """Where (H, W) any channel of values (H, W, C) is another number than the one that stands for no data."""
    return (values != float(no_data)).any(-1)


def _tell_colours(grey: bool, rules: Rules, account: Account) -> None:
    account.done["of grey, each colour made the same"] += grey and rules.channels == 3
    account.done["of colour, made grey"] += not grey and rules.channels == 1
