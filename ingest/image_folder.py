"""Image folders in a zip or tar: train/CLASS/IMAGE and test/CLASS/IMAGE.

Images are read as torchvision's ImageFolder reads them: palette, grey among colour and alpha become RGB, EXIF
rotation is not applied. If every image is grey, one channel is kept. 16-bit images are refused.
"""

from __future__ import annotations

import io
import math
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ingest.archives import check_name, reading
from ingest.arrays import SPLITS, Array, finish, open_pixels
from ingest.errors import DataFormatError, DataShapeError, UploadTooLargeError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_IMAGES = 5_000_000
MAX_IMAGE_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SIDE = 4096  # while resizing; the prepared images have at most 1024
_SPLIT_NAMES = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
_LAYOUT = "the archive holds train/CLASS/IMAGE and test/CLASS/IMAGE, one folder a class"
_GREY = ("L", "1")


class _Member(NamedTuple):
    split: str
    label: str
    name: str
    read: Callable[[], bytes]


def prepare_image_folder(source: Mapping[str, Any], path: Path, target: Path, options: Mapping[str, Any]) -> None:
    """Write prepared arrays from the archive's images, streamed one by one.

    Args:
        options: ``resize`` (shorter side), ``crop`` (central square), ``interpolation``; None where not asked for.
    Raises: IngestError naming the member.
    """
    name = source["filename"]
    with reading(name, DataFormatError, _LAYOUT), _open(path) as archive:
        members = list(archive.members())
        if len(members) > MAX_IMAGES:
            raise UploadTooLargeError(f"{name} holds {len(members)} images; at most {MAX_IMAGES} are taken")
        by_split = {split: [member for member in members if member.split == split] for split in SPLITS}
        if not by_split["test"]:
            raise DataFormatError(f"{name} has no test images", _LAYOUT)
        classes = sorted({member.label for member in members})
        mode = "L" if all(_decode(member, None, {}).mode in _GREY for member in members) else "RGB"
        labels: dict[str, Array] = {}
        size = None
        for split, chosen in by_split.items():
            if not chosen:
                continue
            pixels: Array | None = None
            for row, member in enumerate(chosen):
                values = np.asarray(_decode(member, mode, options))
                values = values[None] if mode == "L" else values.transpose(2, 0, 1)
                size = size or values.shape
                if max(size[1:]) > 1024 or min(size[1:]) < 8:
                    raise DataShapeError(
                        f"{member.name} is {size[2]}x{size[1]}", "8 to 1024 pixels a side are taken; set data.resize"
                    )
                if values.shape != size:
                    raise DataShapeError(
                        f"{member.name} is {values.shape[2]}x{values.shape[1]}, others are {size[2]}x{size[1]}",
                        "set data.resize and data.crop to bring all images to one size",
                    )
                if pixels is None:
                    if not labels:
                        _check_room(target, name, (len(members), *size))
                    pixels = open_pixels(target, split, (len(chosen), *size), np.uint8)
                pixels[row] = values
            labels[split] = np.array([classes.index(member.label) for member in chosen], np.int64)
    if size is None:
        raise DataFormatError(f"{name} has no images", _LAYOUT)
    finish(target, source, kind="imagefolder", image=size, labels=labels, class_names=classes)


def _check_room(target: Path, name: str, shape: tuple[int, ...]) -> None:
    """Refuse what the disk cannot hold: the arrays are mapped, and a full disk would only be found by a crash."""
    needed, free = math.prod(shape), shutil.disk_usage(target).free
    if needed > free:
        raise UploadTooLargeError(
            f"the {shape[0]} images of {name} take {needed / 1e9:.1f} GB prepared, the server has {free / 1e9:.1f} GB",
            "send fewer images, or bring them to a smaller size (data.resize, data.crop)",
        )


def _decode(member: _Member, mode: str | None, options: Mapping[str, Any]) -> Image.Image:
    """Open one image; ``mode`` None stops at the header."""
    try:
        image: Image.Image = Image.open(io.BytesIO(member.read()), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UploadTooLargeError(f"{member.name} has {image.width}x{image.height} pixels")
        if image.mode.startswith("I") or image.mode == "F":
            raise DataFormatError(f"{member.name} has more than 8 bits a channel", "save it with 8 bits")
        if mode is None:
            return image
        image = image.convert(mode)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataFormatError(f"{member.name} cannot be read: {error}", f"{', '.join(FORMATS)} are taken") from error
    return _resize(image, options)


def _resize(image: Image.Image, options: Mapping[str, Any]) -> Image.Image:
    """The shorter side to ``resize``, then the central ``crop``, as torchvision's Resize and CenterCrop do."""
    if side := options.get("resize"):
        scale = side / min(image.size)
        if max(image.size) * scale > MAX_SIDE:
            raise DataShapeError(f"an image of {image.width}x{image.height} is too long to be resized to {side}")
        size = tuple(side if length == min(image.size) else int(length * scale) for length in image.size)
        method = Image.Resampling[str(options.get("interpolation", "bilinear")).upper()]
        image = image.resize((size[0], size[1]), method)
    if crop := options.get("crop"):
        if min(image.size) < crop:
            raise DataShapeError(f"an image of {image.width}x{image.height} is smaller than data.crop = {crop}")
        left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return image


def _place(filename: str) -> tuple[str, str] | None:
    """(split, class) of a member, or None for what every operating system adds on its own."""
    parts = PurePosixPath(filename.replace("\\", "/")).parts
    if "__MACOSX" in parts or any(part.startswith(".") for part in parts):
        return None
    check_name(filename, "the member", DataFormatError)
    for index, part in enumerate(parts[:-2]):
        if part.lower() in _SPLIT_NAMES:
            return _SPLIT_NAMES[part.lower()], parts[index + 1]
    raise DataFormatError(f"{filename} lies in no train/CLASS or test/CLASS folder", _LAYOUT)


class _Archive:
    """A zip or tar, read member by member; nothing is ever extracted to a name from the archive."""

    def __init__(self, opened: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._opened = opened

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def members(self) -> Iterator[_Member]:
        """Regular files in the archive's order."""
        for name, size, read in self._files():
            place = _place(name)
            if place is None:
                continue
            if size > MAX_IMAGE_BYTES:
                raise UploadTooLargeError(f"{name} has {size} bytes; an image may have {MAX_IMAGE_BYTES}")
            yield _Member(*place, name, read)

    def _files(self) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
        if isinstance(self._opened, zipfile.ZipFile):
            archive = self._opened
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(archive.read, info)
            return
        for entry in self._opened:
            if entry.isfile():
                yield entry.name, entry.size, partial(self._read_tar, entry)
            elif not entry.isdir():
                raise DataFormatError(f"{entry.name} is a link or a device", "archives hold regular files only")

    def _read_tar(self, entry: tarfile.TarInfo) -> bytes:
        if not isinstance(self._opened, tarfile.TarFile):
            raise TypeError("not a tar")
        file = self._opened.extractfile(entry)
        return file.read() if file else b""


def _open(path: Path) -> _Archive:
    return _Archive(zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path))
