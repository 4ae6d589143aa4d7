"""Single images: the rules of docs/data.md, and no faster way gives other pixels than Pillow's own."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ingest.images import decode, plain_png
from tests.hostile.images import chunk, encoded, picture, png, raw_png

OPTIONS = {"resize": None, "crop": None, "interpolation": "bilinear"}


def pixels(content: bytes, *, grey: bool = False) -> np.ndarray:
    """(h, w, c)"""
    values, shape = decode(content, "x", OPTIONS, grey=grey)
    return np.frombuffer(values, np.uint8).reshape(shape).transpose(1, 2, 0)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"compress_level": 0}, {"dpi": (72, 72)}, {"optimize": True}])
@pytest.mark.parametrize("size", [(8, 8), (33, 17), (300, 200)])
def test_plain_pngs_are_as_pillow_reads_them(mode, options, size):
    content = encoded(picture(3, mode, size), **options)
    found = plain_png(content)
    assert found is not None
    with Image.open(io.BytesIO(content)) as expected:
        assert found.mode == expected.mode
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_plain_pngs_in_several_chunks():
    content = encoded(picture(3, "RGB", (60, 50)))
    at = content.index(b"IDAT") - 4
    length = int.from_bytes(content[at : at + 4], "big")
    data = content[at + 8 : at + 8 + length]
    split = content[:at] + chunk(b"IDAT", data[:1000]) + chunk(b"IDAT", data[1000:]) + chunk(b"IEND", b"")
    assert np.array_equal(np.asarray(plain_png(split)), np.asarray(picture(3, "RGB", (60, 50))))


@pytest.mark.parametrize(
    "content",
    [png(1, "RGBA"), png(1, "LA"), png(1, "P"), png(1, "1"), raw_png(12, 10, depth=16), raw_png(12, 10, depth=2)],
    ids=["rgba", "la", "palette", "1-bit", "16-bit", "2-bit"],
)
def test_other_pngs_are_left_to_pillow(content):
    assert plain_png(content) is None


def test_alpha_is_dropped():
    image = picture(4, "RGBA")
    assert np.array_equal(pixels(encoded(image)), np.asarray(image)[..., :3])
    grey = picture(4, "LA")
    assert np.array_equal(pixels(encoded(grey), grey=True)[..., 0], np.asarray(grey)[..., 0])


def test_palettes_become_their_colours():
    image = picture(4).quantize(16)
    assert np.array_equal(pixels(encoded(image)), np.asarray(image.convert("RGB")))
    assert np.array_equal(pixels(encoded(image, transparency=3)), np.asarray(image.convert("RGB")))


def test_grey_among_colour_has_three_equal_channels():
    image = picture(4, "L")
    assert np.array_equal(pixels(encoded(image)), np.asarray(image)[..., None].repeat(3, 2))


def test_few_bits_are_spread_over_all_values():
    found = pixels(encoded(picture(4, "1")), grey=True)
    assert set(np.unique(found)) == {0, 255}


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(picture(4, size=(20, 10)), "JPEG", exif=exif)
    assert pixels(content).shape == (10, 20, 3)


def test_cmyk_becomes_rgb_as_pillow_does_it():
    content = encoded(picture(4, "CMYK"), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(pixels(content), np.asarray(image.convert("RGB")))


def test_the_first_picture_of_a_phones_several_is_taken():
    first, second = picture(1, size=(16, 16)), picture(2, size=(16, 16))
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(file.getvalue()), formats=("JPEG",)) as image:
        assert np.array_equal(pixels(file.getvalue()), np.asarray(image.convert("RGB")))
