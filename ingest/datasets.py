"""Named datasets: npz files and zipped image folders that ``temperd datasets fetch NAME`` left in one folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from ingest.errors import DatasetMissingError

_SUFFIXES = (".npz", ".zip")


def find_dataset(name: str, folder: Path) -> dict[str, Any]:
    """The dataset's file, described like an upload.

    Raises: DatasetMissingError if it was not fetched.
    """
    there = {path.stem: path for suffix in _SUFFIXES for path in folder.glob(f"*{suffix}")}
    if not re.fullmatch(r"[a-z0-9-]+", name) or name not in there:
        known = ", ".join(sorted(there)) or "none"
        raise DatasetMissingError(
            f"dataset {name!r} is not on this server (there: {known})", f"temperd datasets fetch {name}"
        )
    path = there[name]
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": str(path), "filename": path.name, "sha256": sha256, "size": path.stat().st_size}
