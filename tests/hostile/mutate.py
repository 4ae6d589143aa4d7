"""Damages files: as bytes, as the opcodes of a pickle inside an archive, as the JSON of a header."""

from __future__ import annotations

import io
import itertools
import json
import pickletools
import random
import zipfile
from collections.abc import Callable
from typing import Any

from tests.hostile.archives import zipped
from tests.hostile.images import chunk
from tests.hostile.lying_safetensors import packed
from tests.hostile.zips import torch_zip

Mutation = Callable[[bytes, bytes, random.Random], bytes]
_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**62,
    2**64,
    10**30,
    "",
    "F32",
    "\0",
    "\ud800",
    [],
    {},
    [0],
    [[]],
)


def mutate_bytes(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four faults: cut, flip, overwrite with a telling number, double, splice with another file."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        fault = rng.randrange(7)
        if fault == 0:
            del out[at:]
        elif fault == 1 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif fault == 2:
            width = rng.choice((1, 2, 4, 8))
            out[at : at + width] = (rng.choice(_NUMBERS) & (2 ** (8 * width) - 1)).to_bytes(width, "little")
        elif fault == 3:
            out[at:at] = out[at : at + rng.randrange(100)]
        elif fault == 4:
            begin = rng.randrange(len(other) + 1)
            out[at : at + rng.randrange(50)] = other[begin : begin + rng.randrange(200)]
        elif fault == 5:
            del out[at : at + rng.randrange(20)]
        elif at < len(out):
            out[at] = rng.randrange(256)
    return bytes(out)


def mutate_pickle(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """An archive that is whole, around a damaged index."""
    index, storages = _index(content)
    opcodes, others = _opcodes(index), _opcodes(_index(other)[0])
    if not opcodes or rng.random() < 0.2:
        return torch_zip(mutate_bytes(index, _index(other)[0], rng), storages)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(opcodes) + 1)
        fault = rng.randrange(5)
        if fault == 0:
            del opcodes[at : at + rng.randint(1, 3)]
        elif fault == 1:
            opcodes[at:at] = opcodes[at : at + rng.randint(1, 20)]
        elif fault == 2 and others:
            begin = rng.randrange(len(others))
            opcodes[at:at] = others[begin : begin + rng.randint(1, 20)]
        elif fault == 3:
            opcodes.insert(at, bytes([rng.randrange(256)]) + rng.randbytes(rng.choice((0, 0, 0, 1, 2, 4, 8))))
        elif at < len(opcodes) and opcodes[at][1:]:
            opcodes[at] = opcodes[at][:1] + mutate_bytes(opcodes[at][1:], b"", rng)
    return torch_zip(b"".join(opcodes), storages)


def mutate_header(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """A safetensors file of the right lengths, with another header."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return mutate_bytes(content, other, rng)
    for _ in range(rng.randint(1, 3)):
        header = _odd_somewhere(header, rng)
    return packed(json.dumps(header).encode(), content[8 + length :])


def mutate_members(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """A whole zip of members of which some are damaged: arrays' headers, images, labels, shards."""
    members = list(_members(content).items())
    if not members:
        return mutate_bytes(content, other, rng)
    for at in rng.sample(range(len(members)), min(len(members), rng.randint(1, 2))):
        members[at] = (members[at][0], mutate_bytes(members[at][1], b"".join(_members(other).values())[:1000], rng))
    return zipped(members)


def mutate_tar(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """A tar of which one header is damaged, with a right checksum."""
    blocks = [content[at : at + 512] for at in range(0, len(content), 512)]
    headers = [at for at, block in enumerate(blocks) if block[257:262] == b"ustar" and len(block) == 512]
    if not headers:
        return mutate_bytes(content, other, rng)
    at = rng.choice(headers)
    block = bytearray(mutate_bytes(blocks[at], other[:512], rng)[:512].ljust(512, b"\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    blocks[at] = bytes(block)
    return b"".join(blocks)


def mutate_image(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """A damaged image of an archive; a PNG's chunks have right checksums."""
    images = [image for name, image in _members(content).items() if not name.endswith((".npy", "/"))]
    image = mutate_bytes(rng.choice(images or [content]), other[:1000], rng)
    if not image.startswith(b"\x89PNG\r\n\x1a\n") or rng.random() < 0.2:
        return image
    out, at = bytearray(image[:8]), 8
    while at + 8 <= len(image):
        length = min(int.from_bytes(image[at : at + 4], "big"), max(0, len(image) - at - 12))
        out += chunk(image[at + 4 : at + 8], image[at + 8 : at + 8 + length])
        at += 12 + length
    return bytes(out)


def _members(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {i.filename: archive.read(i) for i in archive.infolist() if i.file_size < 200_000}
    except Exception:  # noqa: BLE001 - a hostile archive has no members that could be read here
        return {}


def _odd_somewhere(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        name = key if rng.random() < 0.95 else str(rng.choice(_ODD))
        return {**{k: v for k, v in value.items() if k != key}, name: _odd_somewhere(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _odd_somewhere(value[at], rng), *value[at + rng.choice((1, 1, 1, 0)) :]]
    if isinstance(value, int) and rng.random() < 0.7:
        return value + rng.choice((-8, -4, -1, 1, 4, 8))
    return rng.choice(_ODD)


def _index(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    except Exception:  # noqa: BLE001 - a hostile archive has no index that could be read here
        return content, {}
    storages = {name.removeprefix("data/"): data for name, data in records.items() if name.startswith("data/")}
    return records.get("data.pkl", content), storages


def _opcodes(pickle: bytes) -> list[bytes]:
    places = []
    try:
        for _, _, place in pickletools.genops(pickle):
            places.append(place or 0)
            if len(places) > 20_000:
                break
    except Exception:  # noqa: BLE001 - as far as it is a pickle
        pass
    return [pickle[begin:end] for begin, end in itertools.pairwise([*places, len(pickle)])]
