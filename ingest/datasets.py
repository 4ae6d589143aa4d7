"""Named datasets: what ``temperd datasets fetch NAME`` left in one folder, and what lies in the operator's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ingest.errors import DatasetMissingError
from ingest.tars import SUFFIXES as TARS

SUFFIXES = (".npz", ".zip", ".parquet", *TARS)


def available(folders: Iterable[Path]) -> dict[str, Path]:
    """Datasets by name: files of these formats without their suffix, and folders; of equal names the first counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
            if not path.name.startswith(".") and (path.is_dir() or suffix):
                found.setdefault(path.name[: len(path.name) - len(suffix)], path)
    return found


def find_dataset(name: str, folders: Iterable[Path]) -> dict[str, Any]:
    """The dataset's file or folder, described like an upload.

    Raises: DatasetMissingError if it is not there.
    """
    there = available(folders)
    if name not in there:
        known = ", ".join(sorted(there)) or "none"
        raise DatasetMissingError(
            f"dataset {name!r} is not on this server (there: {known})", f"temperd datasets fetch {name}"
        )
    path = there[name]
    sha256, size = _digest(path)
    return {"path": str(path), "filename": path.name, "sha256": sha256, "size": size}


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 of a file; of a folder, over the names and digests of its files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    whole, size = hashlib.sha256(), 0
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest, length = _digest(part)
        whole.update(f"{digest}  {part.relative_to(path).as_posix()}\n".encode(errors="surrogateescape"))
        size += length
    return whole.hexdigest(), size
