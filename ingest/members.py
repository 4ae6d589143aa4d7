"""Files in an archive or a folder, one after the other: names that were checked, bytes that are counted."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ingest.archives import Budget, DamagedError, check_name
from ingest.errors import ArchiveUnsafeError, UploadTooLargeError
from ingest.tars import is_tar, tar_entries
from ingest.zips import is_zip, zip_entries

MAX_MEMBERS = 20_000_000
_MAX_NAME = 1024
_BLOCK = 1 << 20
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}  # and whatever is hidden
_SAFE = "names in archives are relative, like train/cat/1.png"


class Member(NamedTuple):
    """A file, or a folder (size -1).

    ``name`` has slashes between its parts and is in Unicode's composed form; ``blocks`` gives the content in pieces,
    once, before the next member is asked for.
    """

    name: str
    size: int
    blocks: Callable[[], Iterator[bytes]]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.size < 0

    def read(self, most: int) -> bytes:
        """The whole content.

        Raises: UploadTooLargeError if it is of more than ``most`` bytes.
        """
        if self.size > most:
            raise UploadTooLargeError(
                f"{self.name} has {self.size} bytes; at most {most} are taken here", "make it smaller, or leave it out"
            )
        return b"".join(self.blocks())

    def copy(self, path: Path) -> None:
        """Write the content to a file."""
        with path.open("wb") as file:
            for block in self.blocks():
                file.write(block)


def members(path: Path, budget: Budget) -> Generator[Member, None, None]:
    """What a zip, a tar, a compressed tar or a folder holds, in its order, without the clutter of operating systems.

    Raises: ArchiveUnsafeError, UploadTooLargeError; at the end for names that would fall together on some disks.
    """
    if path.is_dir():
        yield from _walk(path)
        return
    if not is_zip(path) and not is_tar(path):
        raise DamagedError("it is neither a zip nor a tar")
    entries = zip_entries(path, budget) if is_zip(path) else tar_entries(path, budget)
    names = _Names()
    for count, (name, size, blocks) in enumerate(entries):
        if count >= MAX_MEMBERS:
            raise UploadTooLargeError(f"the archive has more than {MAX_MEMBERS} members")
        clean = names.check(name)
        if clean:
            yield Member(clean, size, blocks)
    names.check_all(lambda: (clean for name, _, _ in _again(path) if (clean := names.check(name))))


def budget_for(path: Path, name: str) -> Budget:
    """The budget of a file, or of a folder with all that lies in it."""
    files = (path,) if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return Budget(name, sum(file.stat().st_size for file in files))


def _again(path: Path) -> Iterator[tuple[str, int, Callable[[], Iterator[bytes]]]]:
    budget = budget_for(path, path.name)
    return zip_entries(path, budget) if is_zip(path) else tar_entries(path, budget)


class _Names:
    """Checks names. Eight bytes are kept of each: an archive may have millions."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._folders: dict[str, str | None] = {}

    def check(self, name: str) -> str | None:
        """The name in the form that Member has; None for clutter."""
        name = name.replace("\\", "/")
        if name.startswith("/"):
            raise ArchiveUnsafeError(f"the archive has the absolute name {name[:200]!r}", _SAFE)
        folder, _, last = name.rstrip("/").rpartition("/")
        if folder not in self._folders:
            if len(self._folders) > 1_000_000:
                self._folders.clear()
            self._folders[folder] = _clean(folder)
        clean = self._folders[folder]
        if clean is None or not last or last == ".":
            return None
        if _unsafe(last) or len(name) > _MAX_NAME:
            raise ArchiveUnsafeError(f"the archive has a member called {name[:200]!r}", _SAFE)
        if last.startswith(".") or last.lower() in _CLUTTER:
            return None
        if not last.isascii():
            check_name(last, "the member", ArchiveUnsafeError)
            last = unicodedata.normalize("NFC", last)
        whole = f"{clean}/{last}" if clean else last
        if not name.endswith("/"):
            self._digests += _digest(whole)
        return whole

    def check_all(self, again: Callable[[], Iterator[str]]) -> None:
        """Raises: ArchiveUnsafeError if two files have one name, or names that differ in upper and lower case only."""
        digests = np.frombuffer(bytes(self._digests), np.uint64)
        values, counts = np.unique(digests, return_counts=True)
        if len(values) == len(digests):
            return
        double = {value.tobytes() for value in values[counts > 1][:1]}
        found = [name for name in again() if _digest(name) in double][:2]
        raise ArchiveUnsafeError(
            f"the archive has two members whose names fall together: {' and '.join(map(repr, found))}",
            "rename one of them",
        )


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.casefold().encode(), digest_size=8).digest()


def _clean(folder: str) -> str | None:
    """A folder's name without empty parts, or None for clutter."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    for part in parts:
        if _unsafe(part):
            raise ArchiveUnsafeError(f"the archive has a folder called {folder[:200]!r}", _SAFE)
    if any(part.startswith(".") or part.lower() in _CLUTTER for part in parts):
        return None
    check_name(folder, "the folder", ArchiveUnsafeError)
    return unicodedata.normalize("NFC", "/".join(parts))


def _unsafe(part: str) -> bool:
    """Ways out of the archive, drives, and what cannot be printed."""
    return part == ".." or bool(re.search(r"[\x00-\x1f\x7f]|^[A-Za-z]:", part))


def _walk(root: Path) -> Iterator[Member]:
    """A folder that the operator put there; sorted, so that the same files give the same rows."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        place = Path(folder)
        for name in folders:
            yield Member(_name(place / name, root), -1, lambda: iter(()))
        for name in sorted(name for name in files if not _hidden(name)):
            path = place / name
            yield Member(_name(path, root), path.stat().st_size, lambda path=path: _blocks(path))  # type: ignore[misc]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _name(path: Path, root: Path) -> str:
    name = unicodedata.normalize("NFC", PurePosixPath(path.relative_to(root)).as_posix())
    check_name(name, "the file", ArchiveUnsafeError)
    return name


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
