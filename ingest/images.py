"""One image: from bytes of a PNG, JPEG or WebP to pixels, by rules that docs/data.md states.

They are those of torchvision's ImageFolder, with which most networks were trained: palettes become colours, alpha is
dropped, CMYK becomes RGB, EXIF rotation is not applied. Sixteen bits and animations are refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from ingest.errors import DataShapeError, ImageInvalidError, UploadTooLargeError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_BYTES = 64 * 2**20
MAX_PIXELS = 36_000_000
MIN_SIDE, MAX_SIDE = 8, 1024
_MAX_RESIZING = 4096  # a side, while resizing
_MAX_SCANS = 100  # of a progressive JPEG; each is a pass over all its pixels
_GREY = ("L", "1", "LA")
_PNG = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">IIBBBBB")
_PLAIN = {0: "L", 2: "RGB"}
_OTHERS = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\x00": "a TIFF", b"MM\x00*": "a TIFF", b"8BPS": "a PSD",
    b"\x00\x00\x01\x00": "an ICO", b"<svg": "an SVG", b"<?xm": "an SVG", b"%PDF": "a PDF", b"\x93NUM": "an npy",
}  # fmt: skip
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_CONVERT = f"send {', '.join(FORMATS)}: Image.open(path).convert('RGB').save('image.png')"


class ColourFoundError(Exception):
    """An image in colour, where all before it were grey."""


def decode(content: bytes, name: str, options: Mapping[str, Any], *, grey: bool) -> tuple[bytes, tuple[int, int, int]]:
    """Pixels in the order (c, h, w) and that shape; c is 1 if ``grey``, else 3.

    Args:
        options: ``resize`` (shorter side), ``crop`` (central square), ``interpolation``; None where not asked for.
    Raises: IngestError naming the image; ColourFoundError.
    """
    try:
        image = plain_png(content) or opened(content, name)
        if grey and image.mode not in _GREY:
            raise ColourFoundError
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        mode = "L" if grey else "RGB"
        if image.mode == mode:
            image.load()
        else:
            image = image.convert(mode)
    except _DAMAGE as error:
        raise ImageInvalidError(f"{name} cannot be read: {error}", _CONVERT) from error
    image = _resize(image, name, options)
    if max(image.size) > MAX_SIDE or min(image.size) < MIN_SIDE:
        raise DataShapeError(
            f"{name} is {image.width}x{image.height}",
            f"{MIN_SIDE} to {MAX_SIDE} pixels a side are taken; set data.resize",
        )
    if grey:
        return image.tobytes(), (1, image.height, image.width)
    return np.asarray(image).transpose(2, 0, 1).tobytes(), (3, image.height, image.width)


def is_grey(content: bytes, name: str) -> bool:
    """Whether the image has no colours; only its header is read."""
    return opened(content, name).mode in _GREY


def plain_png(content: bytes) -> Image.Image | None:
    """A PNG of 8-bit grey or RGB, the usual kind, decoded without the reader's detours: small images in half the time.

    None for all else, and for what looks damaged: then the reader says what is wrong.
    """
    head = content[:33]
    if len(head) < 33 or not head.startswith(_PNG) or head[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height, depth, colour, _, _, interlaced = _IHDR.unpack_from(head, 16)
    if depth != 8 or colour not in _PLAIN or not 0 < width * height <= MAX_PIXELS:
        return None
    data, at = [], 8
    while at + 12 <= len(content):
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        if end > len(content) or zlib.crc32(content[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return None
        if kind == b"IDAT":
            data.append(content[at + 8 : end - 4])
        elif kind == b"IEND":
            mode = _PLAIN[colour]
            return Image.frombytes(mode, (width, height), b"".join(data), "zip", mode, interlaced)
        elif kind == b"acTL" or (kind[0] < 97 and kind != b"IHDR"):  # animated, or what must be understood
            return None
        at = end
    return None


def opened(content: bytes, name: str) -> Image.Image:
    """The image with its header read, and judged.

    Raises: ImageInvalidError, UploadTooLargeError.
    """
    image: Image.Image
    try:  # the readers themselves: Image.open asks one after the other, and costs as much as the decoding
        if content.startswith(_PNG):
            image = PngImagePlugin.PngImageFile(io.BytesIO(content))
        elif content.startswith(b"\xff\xd8\xff"):
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            image = WebPImagePlugin.WebPImageFile(io.BytesIO(content))
        else:
            kind = next((kind for magic, kind in _OTHERS.items() if content.startswith(magic)), "no image")
            raise ImageInvalidError(f"{name} is {kind}, whatever its name says", _CONVERT)
    except _DAMAGE as error:
        raise ImageInvalidError(f"{name} cannot be read: {error}", _CONVERT) from error
    if image.width * image.height > MAX_PIXELS:
        raise UploadTooLargeError(
            f"{name} has {image.width}x{image.height} pixels; at most {MAX_PIXELS // 10**6} million are taken",
            "make it smaller before sending it",
        )
    if image.format == "PNG" and (content[12:16] != b"IHDR" or content[24] > 8):
        raise ImageInvalidError(f"{name} has more than 8 bits a channel", "save it with 8: mogrify -depth 8 *.png")
    if image.format == "JPEG" and content.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageInvalidError(f"{name} is a JPEG of more than {_MAX_SCANS} scans", _CONVERT)
    if getattr(image, "is_animated", False):
        raise ImageInvalidError(f"{name} is animated", "save one of its frames")
    return image


def _resize(image: Image.Image, name: str, options: Mapping[str, Any]) -> Image.Image:
    """The shorter side to ``resize``, then the central ``crop``, as torchvision's Resize and CenterCrop do."""
    if side := options.get("resize"):
        scale = side / min(image.size)
        if max(image.size) * scale > _MAX_RESIZING:
            raise DataShapeError(
                f"{name} of {image.width}x{image.height} is too long to be resized to {side}", "leave it out, or cut it"
            )
        size = tuple(side if length == min(image.size) else int(length * scale) for length in image.size)
        method = Image.Resampling[str(options.get("interpolation", "bilinear")).upper()]
        image = image.resize((size[0], size[1]), method)
    if crop := options.get("crop"):
        if min(image.size) < crop:
            raise DataShapeError(
                f"{name} of {image.width}x{image.height} is smaller than data.crop = {crop}", "set data.resize too"
            )
        left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return image
