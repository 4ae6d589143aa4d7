"""WebDataset: tars of KEY.png with KEY.cls, or KEY.json with a label; one, or several in a zip, a tar or a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.archives import reading
from ingest.collect import Collector, Tell, silent
from ingest.decoding import Record
from ingest.errors import DataFormatError, LabelsInvalidError
from ingest.images import MAX_IMAGE_BYTES
from ingest.members import Member, budget_for, members
from ingest.splits import SPLIT_NAMES, split_of_shard
from ingest.tars import SUFFIXES

LAYOUT = "each image KEY.png is followed by its label: KEY.cls, a number, or KEY.json with the field label"
_IMAGES = {"png", "jpg", "jpeg", "webp"}
_FIELDS = ("label", "cls", "class", "target")
_MAX_LABEL = 64 << 10
_SPOOL = ".shard"


def prepare_webdataset(
    source: Mapping[str, Any], path: Path, target: Path, options: Mapping[str, Any], tell: Tell = silent
) -> None:
    """Write prepared arrays from samples; arguments as for image folders.

    Raises: IngestError naming the sample.
    """
    name = source["filename"]
    collector = Collector(source, target, options, kind="webdataset", layout=LAYOUT, tell=tell)
    with reading(name, DataFormatError, LAYOUT):
        try:
            collector.collect(lambda: _samples(_files(path, target, name)))
        finally:
            (target / _SPOOL).unlink(missing_ok=True)


def _files(path: Path, target: Path, name: str) -> Iterator[tuple[str, str, Member]]:
    """Split, shard and member, of all shards."""
    budget = budget_for(path, name)
    for member in members(path, budget):
        if member.is_folder:
            continue
        if not member.name.lower().endswith(SUFFIXES):
            split = next((part for part in member.name.lower().split("/")[:-1] if part in SPLIT_NAMES), None)
            yield SPLIT_NAMES[split] if split else "all", "", member
            continue
        spool, split = target / _SPOOL, split_of_shard(member.name)
        member.copy(spool)
        for inner in members(spool, budget):
            if not inner.is_folder:
                yield split, f"{member.name}/", inner


def _samples(files: Iterator[tuple[str, str, Member]]) -> Iterator[Record]:
    """Files that follow each other and share everything before the first dot are a sample."""
    key, split, image, label = "", "", None, None
    for place, shard, member in files:
        folder, _, last = member.name.rpartition("/")
        stem, _, ending = last.partition(".")
        ending = ending.lower().rpartition(".")[2]
        if (found := f"{shard}{folder}/{stem}") != key:
            if image is not None:
                yield _sample(key, split, image, label)
            key, split, image, label = found, place, None, None
        if ending in _IMAGES:
            if image is not None:
                raise DataFormatError(f"the sample {key} has two images", LAYOUT)
            image = member.read(MAX_IMAGE_BYTES)
        elif ending == "cls" or (ending == "json" and label is None):
            label = _label(member.read(_MAX_LABEL), ending, key)
    if image is not None:
        yield _sample(key, split, image, label)


def _sample(key: str, split: str, image: bytes, label: str | int | None) -> Record:
    if label is None:
        raise LabelsInvalidError(f"the sample {key} has no label", LAYOUT)
    return Record(split, label, key, image)


def _label(content: bytes, ending: str, key: str) -> str | int | None:
    """A number, or a class's name.

    Raises: LabelsInvalidError naming the sample.
    """
    try:
        value: Any = content.decode().strip()
        if ending == "json":
            fields = json.loads(value)
            value = next((fields[name] for name in _FIELDS if name in fields), None)
            if value is None:
                return None
    except (ValueError, TypeError, RecursionError) as error:
        raise LabelsInvalidError(f"the label of {key} cannot be read: {error}", LAYOUT) from error
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or _is_number(value):
        raise LabelsInvalidError(f"the label of {key} is {value!r}", "labels are whole numbers or names of classes")
    return value


def _is_number(value: int | str) -> bool:
    """Whether text is a number that is no label: 1.5, nan."""
    if isinstance(value, int):
        return False
    try:
        float(value)
    except ValueError:
        return len(value) > 1000
    return True
