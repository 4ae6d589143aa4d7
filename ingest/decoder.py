"""Decodes the images of a job, wherever there is a core, and writes them where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ingest.arrays import Pixels, digests_of
from ingest.errors import DataShapeError, IngestError
from ingest.images import ColourFoundError, decode

Encoded = tuple[int, int, str, bytes]  # number of the split, row, name, content


class Decoder:
    """From a job to its answer; another process gets a copy of it, and writes to the same files.

    ``pixels``: of each split, by its number. ``image``: the shape (c, h, w) of all, None before the first one.
    """

    def __init__(self, pixels: Sequence[Pixels], options: Mapping[str, Any], *, grey: bool) -> None:
        self._pixels, self._options, self.grey = pixels, options, grey
        self.image: tuple[int, int, int] | None = None

    def __call__(self, job: bytes) -> bytes:
        """Decode and write the images of a job: a mark and the splits and digests in order, or the refusal."""
        try:
            return b"+" + self._decode(job)
        except ColourFoundError:
            return b"c"
        except IngestError as error:
            return b"!" + json.dumps([type(error).__name__, error.detail, error.hint]).encode()

    def _decode(self, job: bytes) -> bytes:
        answer = bytearray()
        ready: list[bytes] = []
        begun = (0, 0)  # split and row of the first that is ready
        for split, row, name, content in _unpack(job):
            pixels, shape = decode(content, name, self._options, grey=self.grey)
            if shape != self.image:
                self._check_shape(shape, name)
            if ready and (split, row) != (begun[0], begun[1] + len(ready)):
                self._write(begun, ready)
                ready = []
            if not ready:
                begun = (split, row)
            ready.append(pixels)
            answer.append(split)
            answer += digests_of(pixels, len(pixels))
        self._write(begun, ready)
        return bytes(answer)

    def _check_shape(self, shape: tuple[int, int, int], name: str) -> None:
        if self.image is None:
            self.image = shape
        elif shape != self.image:
            raise DataShapeError(
                f"{name} is {shape[2]}x{shape[1]}, others are {self.image[2]}x{self.image[1]}",
                "set data.resize and data.crop to bring all images to one size",
            )

    def _write(self, begun: tuple[int, int], ready: list[bytes]) -> None:
        split, row = begun
        self._pixels[split].write(row, b"".join(ready), len(ready[0]))


def pack(chunk: Sequence[Encoded]) -> bytes:
    """A job."""
    names = [name.encode() for _, _, name, _ in chunk]
    head = np.array(
        [(split, row, len(name), len(content)) for (split, row, _, content), name in zip(chunk, names, strict=True)],
        np.int64,
    )
    return b"".join((len(chunk).to_bytes(8, "little"), head.tobytes(), *names, *(row[3] for row in chunk)))


def _unpack(job: bytes) -> Iterator[Encoded]:
    count = int.from_bytes(job[:8], "little")
    head = np.frombuffer(job, np.int64, 4 * count, 8).reshape(count, 4).tolist()
    name_at = 8 + 32 * count
    at = name_at + sum(row[2] for row in head)
    for split, row, name_length, length in head:
        yield split, row, job[name_at : name_at + name_length].decode(), job[at : at + length]
        name_at, at = name_at + name_length, at + length
