"""The data of one job: told what it is by its content, and prepared."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.archives import reading
from ingest.collect import Tell, silent
from ingest.errors import DataFormatError, DataShapeError
from ingest.image_folder import prepare_image_folder
from ingest.members import budget_for, members
from ingest.npz import prepare_npz
from ingest.parquet import is_parquet, prepare_parquet
from ingest.tars import SUFFIXES as TARS
from ingest.webdataset import prepare_webdataset

_LOCAL, _NAMED = struct.Struct("<26xH2x"), 512  # a zip's first member: the length of its name, which follows
HINT = "npz, Parquet, WebDataset, or an image folder as zip or tar"
_LOOKED_AT = 1000
_PREPARE = {
    "imagefolder": prepare_image_folder,
    "parquet": prepare_parquet,
    "webdataset": prepare_webdataset,
}


def prepare_data(
    source: Mapping[str, Any], path: Path, target: Path, options: Mapping[str, Any], tell: Tell = silent
) -> None:
    """Write ``x_SPLIT.npy``, ``y_SPLIT.npy`` and ``data.json`` into ``target``.

    Args:
        source: filename, sha256 and size of the upload.
        path: the raw upload, or a folder of the operator's.
        options: the spec's data part; ``format`` None is told from the content.
    Raises: IngestError with code, detail and hint.
    """
    name = source["filename"]
    with reading(name, DataFormatError, HINT):
        kind = options.get("format") or _guess(path, name)
    if kind == "npz":
        if options.get("resize") or options.get("crop"):
            raise DataShapeError(
                f"data.resize and data.crop are for image files, and {name} holds arrays", "leave them out of the spec"
            )
        prepare_npz(source, path, target, tell)
    else:
        _PREPARE[kind](source, path, target, options, tell)


def _guess(path: Path, name: str) -> str:
    """By the names of the first members: arrays, shards, samples with labels beside them; else an image folder."""
    if path.is_file() and _is_of_torch(path):
        raise DataFormatError(
            f"{name} was written by torch.save",
            "np.savez('data.npz', x_train=..., y_train=..., x_test=..., y_test=...), of uint8 images, makes one that "
            "is taken",
        )
    if path.is_file() and is_parquet(path):
        return "parquet"
    found = members(path, budget_for(path, name))
    names = [member.name for member in islice(found, _LOOKED_AT) if not member.is_folder]
    found.close()
    endings = {PurePosixPath(each).suffix.lower() for each in names}
    if endings == {".npy"}:
        return "npz"
    if ".parquet" in endings:
        return "parquet"
    if ".cls" in endings or any(each.lower().endswith(TARS) for each in names):
        return "webdataset"
    whole = set(names)
    beside = (PurePosixPath(each).with_suffix(".json").as_posix() for each in names if not each.endswith(".json"))
    if ".json" in endings and any(each in whole for each in beside):
        return "webdataset"
    if endings & {".npz", ".zip", ".parquet", ".7z", ".rar"}:
        inner = next(each for each in names if PurePosixPath(each).suffix.lower() in {".npz", ".zip", ".7z", ".rar"})
        raise DataFormatError(f"{name} holds {inner}, another archive", f"send {PurePosixPath(inner).name} itself")
    return "imagefolder"


def _is_of_torch(path: Path) -> bool:
    """Whether its first member is what torch.save writes first."""
    with path.open("rb") as file:
        head = file.read(_LOCAL.size + _NAMED)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        return False
    length: int = _LOCAL.unpack_from(head)[0]
    return head[_LOCAL.size : _LOCAL.size + length].endswith(b"/data.pkl")
