"""A checkpoint: from an upload to safetensors and a manifest of what it looked like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.foreign import HEAD, describe_foreign
from ingest.safetensors_file import read_safetensors
from ingest.state_dict import find_state_dict
from ingest.tensors import check_count, write_tensors
from ingest.torch_zip import TorchZip


def prepare_checkpoint(source: dict[str, Any], path: Path, target: Path) -> None:
    """Write ``checkpoint.safetensors`` and ``checkpoint.json`` into ``target``.

    Which format it is, the content says, never the name. Memory does not grow with the file.

    Args:
        source: filename, sha256 and size of the upload.
        path: the raw upload.
        target: the input folder of a work folder.
    Raises: IngestError with code, detail and hint.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - 1))
        last = file.read(1)
    if head.startswith(b"PK\x03\x04"):
        manifest = _from_torch_zip(path, target)
    elif head[8:9] == b"{" and head[7] == 0:  # a header of less than 2**56 bytes
        manifest = _from_safetensors(path, target)
    else:
        raise describe_foreign(source["filename"], head, last)
    (target / "checkpoint.json").write_text(json.dumps({"source": source, **manifest}))


def _from_safetensors(path: Path, target: Path) -> dict[str, Any]:
    tensors, metadata = read_safetensors(path)
    return {"format": "safetensors", "tensors": write_tensors(target, tensors), "metadata": metadata}


def _from_torch_zip(path: Path, target: Path) -> dict[str, Any]:
    archive = TorchZip(path)
    found = find_state_dict(archive.root)
    check_count(len(found.tensors))
    return {
        "format": "pt",
        "tensors": write_tensors(target, archive.tensors(found.tensors)),
        "wrapper": found.wrapper,
        "extras": found.extras,
        "dropped": found.dropped,
    }
