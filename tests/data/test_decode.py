"""Files of every kind that photos come in: what becomes of them, and that it is said."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from msm.data.decode import Rules, decode
from msm.data.folder import Account
from msm.data.images import load_image
from msm.errors import DataError

SIZE = 8
RAMP = np.linspace(0, 255, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)
HIDDEN = np.zeros((SIZE, SIZE), dtype=bool)
HIDDEN[2:5, 3:7] = True


def loaded(path, channels=3, **options):
    """The image, and what was said of it."""
    account = Account()
    image = load_image(path, SIZE, Rules(channels, **options), account)
    return image, {what for what, number in account.done.items() if number}


def on_white(pixels):
    return torch.from_numpy(np.where(HIDDEN[..., None], 255, pixels)).movedim(-1, 0) / 127.5 - 1


def transparent(kind, hidden):
    """A picture with a hole, under which something is hidden."""
    alpha = np.where(HIDDEN, 0, 255).astype(np.uint8)
    grey = np.where(HIDDEN, hidden, RAMP.clip(1, 254)).astype(np.uint8)
    colour = np.where(HIDDEN[..., None], hidden, COLOUR).astype(np.uint8)
    if kind == "RGBA":
        return Image.fromarray(np.dstack([colour, alpha])), {}, COLOUR
    if kind == "LA":
        return Image.fromarray(np.dstack([grey, alpha])), {}, RAMP.clip(1, 254)[..., None].repeat(3, 2)
    key = np.where(HIDDEN, 0, RAMP.clip(1, 254)).astype(np.uint8)  # colour 0 of the palette, or of the file, is none
    image = Image.fromarray(key)
    if kind == "P":
        image = image.convert("P")
        image.putpalette([hidden] * 3 + [v for n in range(1, 256) for v in (n, n, n)])
    if kind == "RGB":
        image = image.convert("RGB")
    none = (0, 0, 0) if kind == "RGB" else 0
    return image, {"transparency": none}, RAMP.clip(1, 254)[..., None].repeat(3, 2)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("hidden", [0, 77])
def test_transparency_is_put_on_white(tmp_path, kind, hidden):
    image, options, truth = transparent(kind, hidden)
    image.save(tmp_path / "a.png", **options)
    found, said = loaded(tmp_path / "a.png")
    torch.testing.assert_close(found, on_white(truth).float())
    assert "with transparency, put on white" in said
    grey, _ = loaded(tmp_path / "a.png", channels=1)
    assert (grey[0][torch.from_numpy(HIDDEN)] == 1).all()


def test_an_alpha_channel_that_hides_nothing_is_not_spoken_of(tmp_path):
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "a.png")
    assert loaded(tmp_path / "a.png")[1] == set()


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_several_images_in_a_file_are_refused(tmp_path, suffix):
    first, *others = (Image.fromarray(np.roll(COLOUR, n, 0)) for n in range(3))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others)
    with pytest.raises(DataError, match=rf"a.{suffix}: .*3 images in one file"):
        loaded(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_smaller_copies_of_a_page_are_no_images(tmp_path, kind):
    pixels = (COLOUR / 255).astype(kind) if kind == np.float32 else COLOUR
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    image, _ = loaded(tmp_path / "a.tif")
    assert (image - (torch.from_numpy(COLOUR).movedim(-1, 0) / 127.5 - 1)).abs().max() < 1e-6


def test_a_preview_in_a_jpeg_is_no_second_image(tmp_path):
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "b.jpg", quality=75)
    image, said = loaded(tmp_path / "a.jpg")
    assert said == {"with further pictures in the file (MPO), of which the first is read"}
    assert torch.equal(image, loaded(tmp_path / "b.jpg")[0])


def png_of_16_bits(path, pixels):
    """Pillow writes none of several channels."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    height, width, channels = pixels.shape
    kind = {3: 2, 4: 6, 2: 4}[channels]
    parts = (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows))
    chunks = (
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (*parts, (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_colours_of_16_bits_are_read_with_8_and_said(tmp_path):
    deep = COLOUR.astype(np.uint16) * 257
    png_of_16_bits(tmp_path / "a.png", deep)
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="rgb")
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    eight, said = loaded(tmp_path / "c.png")
    assert said == set()
    for name in ("a.png", "b.tif"):
        image, said = loaded(tmp_path / name)
        assert torch.equal(image, eight) and said == {"with 16 bits a colour, read with 8"}
    png_of_16_bits(tmp_path / "d.png", np.dstack([deep, np.where(HIDDEN, 0, 65535)]))
    torch.testing.assert_close(loaded(tmp_path / "d.png")[0], on_white(COLOUR).float())


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_point_has_a_range(tmp_path, name, channels):
    """0 to 1, or data.value_range; what lies beyond is refused, or clipped and said."""
    unit = (COLOUR if channels == 3 else RAMP).astype(np.float32) / 255
    write = np.save if name == "a.npy" else tifffile.imwrite
    truth = torch.from_numpy(unit.reshape(SIZE, SIZE, -1)).movedim(-1, 0) * 2 - 1
    write(tmp_path / name, unit)
    image, said = loaded(tmp_path / name, channels)
    torch.testing.assert_close(image, truth, atol=1e-6, rtol=0)
    assert said == {"where black is 0 and white 1"}
    write(tmp_path / name, (100 + 50 * unit).astype(np.float32))
    with pytest.raises(DataError, match=f"{name}: .*values from 100 to 150, beyond 0 to 1: set data.value_range"):
        loaded(tmp_path / name, channels)
    image, said = loaded(tmp_path / name, channels, value_range=(100, 150))
    torch.testing.assert_close(image, truth, atol=1e-5, rtol=0)
    assert said == {"where black is 100 and white 150"}
    image, said = loaded(tmp_path / name, channels, value_range=(100, 125))
    assert image.max() == 1 and "with values beyond data.value_range, clipped" in said


def test_12_bits_in_16_have_a_range(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / "a.png")
    image, said = loaded(tmp_path / "a.png", 1, value_range=(0, 4080))
    torch.testing.assert_close(image[0], torch.from_numpy(RAMP) / 127.5 - 1, atol=1e-6, rtol=0)
    assert said == {"where black is 0 and white 4080"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_pixels_of_complete_photos_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "a.tif", np.where(HIDDEN, value, RAMP / 255).astype(np.float32))
    with pytest.raises(DataError, match=r"a.tif: .*holds NaN; data.kind masked takes these pixels for missing"):
        loaded(tmp_path / "a.tif", 1)


def test_colours_made_and_unmade_are_said(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg")
    image, said = loaded(tmp_path / "grey.png")
    assert torch.equal(image[0], image[2]) and said == {"of grey, each colour made the same"}
    assert loaded(tmp_path / "colour.png", 1)[1] == {"of colour, made grey"}
    assert loaded(tmp_path / "cmyk.jpg")[1] == {"of CMYK, made RGB without a colour profile"}
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "turned.jpg", exif=exif)
    assert loaded(tmp_path / "turned.jpg")[1] == {"turned upright by their Exif"}


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((5, 8, 8), np.float32), r"an array of shape \(5, 8, 8\): neither \(H, W\) nor \(H, W, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), "an array of shape"),
        (np.zeros((8, 8), np.complex64), "values of type complex64"),
        (np.array([[{}]], dtype=object), "not a readable image"),
        (np.zeros((0, 8), np.float32), "an array of shape"),
    ],
)
def test_arrays_that_are_no_photo_are_refused(tmp_path, array, reason):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=reason):
        decode(tmp_path / "a.npy", Rules(1), Account())


def test_an_array_that_claims_all_memory_is_refused(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "a.npy").write_bytes(content.getvalue())
    with pytest.raises(DataError, match=r"a\.npy: not a readable image"):
        decode(tmp_path / "a.npy", Rules(1), Account())
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    wide = data.replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 2**30))
    wide = wide.replace(struct.pack("<HHIHH", 256, 3, 1, 8, 0), struct.pack("<HHII", 256, 4, 1, 2**30))
    assert wide != data
    (tmp_path / "a.tif").write_bytes(wide)
    with pytest.raises(DataError, match=r"a\.tif: not a readable image"):
        decode(tmp_path / "a.tif", Rules(3), Account())


def test_colours_first_are_put_last(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(COLOUR, -1, 0))
    image, said = loaded(tmp_path / "a.npy")
    assert torch.equal(image, torch.from_numpy(COLOUR).movedim(-1, 0) / 127.5 - 1) and said == {
        "with the colours first"
    }
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(COLOUR, -1, 0) / np.float32(255), planarconfig="separate")
    torch.testing.assert_close(loaded(tmp_path / "a.tif")[0], image, atol=1e-6, rtol=0)
