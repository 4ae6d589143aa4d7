"""Images and trees of them, honest and hostile, for the corpora of data."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(7)


def picture(value: int = 0, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Noise, another one for each value."""
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(value: int = 0, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> bytes:
    """A PNG of noise."""
    return encoded(picture(value, mode, size))


def tree(
    root: str = "",
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("cat", "dog"),
    count: int = 4,
) -> dict[str, bytes]:
    """An image folder by name of member; no two images are equal."""
    places = [f"{root}{split + '/' if split else ''}{label}" for split in splits for label in classes]
    return {f"{place}/{n}.png": png(100 * index + n) for index, place in enumerate(places) for n in range(count)}


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(
    width: int, height: int, *, depth: int = 8, colour: int = 0, before: bytes = b"", data: bytes = b""
) -> bytes:
    """A PNG with this header, ``before`` between header and data, and ``data`` in place of all black."""
    if not data:
        packer = zlib.compressobj(9)
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        row = bytes(1 + (width * samples * depth + 7) // 8)
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")
