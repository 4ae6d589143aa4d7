"""Image folders in a zip, a tar or a folder: train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.archives import reading
from ingest.collect import Collector, Tell, silent
from ingest.decoding import Record
from ingest.errors import DataFormatError, LabelsInvalidError
from ingest.images import MAX_IMAGE_BYTES
from ingest.members import budget_for, members
from ingest.splits import SPLIT_NAMES

LAYOUT = "the archive holds train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE alone, one folder a class"
_NOTES = {"txt", "md", "rst", "csv", "tsv", "json", "xml", "yaml", "yml", "html", "py", "ipynb"}
_NOTES |= {"license", "readme", "copying", "notice", "authors"}  # what lies beside images, with and without an ending


def prepare_image_folder(
    source: Mapping[str, Any], path: Path, target: Path, options: Mapping[str, Any], tell: Tell = silent
) -> None:
    """Write prepared arrays from the archive's images, streamed one by one.

    Args:
        options: ``resize`` (shorter side), ``crop`` (central square), ``interpolation``; None where not asked for.
        tell: hears how far it is.
    Raises: IngestError naming the member.
    """
    name = source["filename"]
    collector = Collector(source, target, options, kind="imagefolder", layout=LAYOUT, tell=tell)
    with reading(name, DataFormatError, LAYOUT):
        collector.collect(lambda: _records(path, name), rename=_classes)


def _records(path: Path, name: str) -> Iterator[Record]:
    declared, seen = set(), set()
    places: dict[str, tuple[str, str]] = {}
    for member in members(path, budget_for(path, name)):
        folder, _, last = member.name.rpartition("/")
        if member.is_folder:
            split, label = _place(member.name)
            if split != "all" and _is_class(member.name):
                declared.add((split, label))
            continue
        if last.lower().rpartition(".")[2] in _NOTES:
            continue
        if folder not in places:
            places[folder] = _place(folder)
            seen.add(places[folder])
        split, label = places[folder]
        if not label:
            raise DataFormatError(f"{member.name} lies in no class's folder", LAYOUT)
        yield Record(split, label, member.name, member.read(MAX_IMAGE_BYTES))
    for split, label in sorted(declared - seen):
        raise LabelsInvalidError(
            f"the class {label!r} of {name} has no images in {split}", "remove its folder everywhere, or add images"
        )


def _place(folder: str) -> tuple[str, str]:
    """(split, class) of the images in a folder; ("all", folder) where there is no folder of a split above."""
    parts = folder.split("/")
    for index, part in enumerate(parts[:-1]):
        if part.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[part.lower()], parts[index + 1]
    return "all", folder


def _is_class(folder: str) -> bool:
    """Whether the folder lies right below that of a split."""
    parts = folder.lower().split("/")
    return len(parts) > 1 and parts[-2] in SPLIT_NAMES and not SPLIT_NAMES.keys() & set(parts[:-2])


def _classes(folders: list[str]) -> list[str]:
    """The class of each folder: its first part, once those that all have in common are gone."""
    parts = [folder.split("/") for folder in folders]
    while all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return [part[0] for part in parts]
