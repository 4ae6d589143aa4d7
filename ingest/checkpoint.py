"""A checkpoint: from an upload to safetensors and a manifest of what it looked like."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ingest.archives import check_name
from ingest.errors import (
    CheckpointFormatError,
    CheckpointNotFiniteError,
    CheckpointNotPlainError,
    UploadTooLargeError,
)
from ingest.pickle_walk import SAVE_HINT, TensorRef
from ingest.torch_zip import NUMPY_DTYPES, TorchZip

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_MAX_TENSORS = 20_000
_MAX_HEADER = 100 * 2**20


def prepare_checkpoint(source: dict[str, Any], path: Path, target: Path) -> None:
    """Write ``checkpoint.safetensors`` and ``checkpoint.json`` into ``target``.

    Args:
        source: filename, sha256 and size of the upload.
        path: the raw upload.
        target: the input folder of a work folder.
    Raises: IngestError with code, detail and hint.
    """
    with path.open("rb") as file:
        magic = file.read(9)
    if magic[:4] == b"PK\x03\x04":
        manifest = _from_torch_zip(path, target)
    elif magic[8:9] == b"{":
        manifest = _from_safetensors(path, target)
    elif magic[:1] == b"\x80":
        raise CheckpointNotPlainError("a pickle in torch's legacy format, or a pickled object", SAVE_HINT)
    else:
        raise CheckpointFormatError(f"{source['filename']} is neither safetensors nor a zip-format .pt file", SAVE_HINT)
    (target / "checkpoint.json").write_text(json.dumps({"source": source, **manifest}))


def _from_safetensors(path: Path, target: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, path.stat().st_size):
            raise CheckpointFormatError("a safetensors file with a broken header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointFormatError(f"a safetensors file with a broken header: {error}") from error
    metadata = header.pop("__metadata__", None) or {}
    _check_count(len(header))
    prepared = target / "checkpoint.safetensors"
    shutil.copyfile(path, prepared)
    try:
        with safe_open(prepared, framework="np") as opened:
            keys = set(opened.keys())
    except SafetensorError as error:
        raise CheckpointFormatError(f"a damaged safetensors file: {error}") from error
    # the header's order, which is the order of the data; safe_open checked offsets, sizes and dtypes
    tensors = [
        {"key": key, "dtype": entry["dtype"], "shape": entry["shape"]} for key, entry in header.items() if key in keys
    ]
    for entry in tensors:
        _check_dtype(entry["key"], entry["dtype"])
    start = 8 + length
    values = np.memmap(prepared, np.uint8, "r")
    for entry in tensors:
        begin, end = header[entry["key"]]["data_offsets"]
        bits = np.frombuffer(values[start + begin : start + end].tobytes(), NUMPY_DTYPES[entry["dtype"]])
        _check_finite(entry["key"], entry["dtype"], bits)
    return {"format": "safetensors", "tensors": tensors, "metadata": metadata}


def _from_torch_zip(path: Path, target: Path) -> dict[str, Any]:
    archive = TorchZip(path)
    wrapper, state, extras, dropped = _unwrap(archive.root)
    _check_count(len(state))
    for name in (*state, *extras, *(value for value in extras.values() if isinstance(value, str))):
        check_name(name, "the checkpoint's key", CheckpointFormatError)
    sizes = {key: math.prod(t.shape) * np.dtype(NUMPY_DTYPES[t.storage.dtype]).itemsize for key, t in state.items()}
    if sum(sizes.values()) > 2 * path.stat().st_size:  # a storage may be shared, but not without bound
        raise UploadTooLargeError("the tensors are more than twice the file: many share one storage")
    tensors, header, offset = [], {}, 0
    for key, tensor in state.items():
        entry = {"dtype": tensor.storage.dtype, "shape": list(tensor.shape)}
        tensors.append({"key": key, **entry})
        header[key] = {**entry, "data_offsets": [offset, offset + sizes[key]]}
        offset += sizes[key]
    # written here, tensor by tensor: the library's writer wants all of them in memory, and torch or raw pointers
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (target / "checkpoint.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, tensor in state.items():
            values = archive.read(key, tensor)
            _check_finite(key, tensor.storage.dtype, values)
            file.write(values.tobytes())
    return {"format": "pt", "tensors": tensors, "wrapper": wrapper, "extras": extras, "dropped": dropped}


def _unwrap(root: Any) -> tuple[list[str], dict[str, TensorRef], dict[str, Any], list[str]]:
    """Path to the state dict, the state dict, plain values beside it, and what is dropped."""
    if _is_state_dict(root):
        return [], root, {}, []
    if isinstance(root, dict):
        for key in WRAPPERS:
            if _is_state_dict(root.get(key)):
                others = {name: value for name, value in root.items() if name != key}
                extras = {str(name): value for name, value in others.items() if _is_plain(value)}
                return (
                    [key],
                    root[key],
                    extras,
                    sorted(str(name) for name in others if str(name) not in extras),
                )
    raise CheckpointFormatError(
        "the file holds no state dict: a dict from names to tensors, alone or under "
        + ", ".join(repr(name) for name in WRAPPERS),
        SAVE_HINT,
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, TensorRef) for key, item in value.items())
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _check_count(count: int) -> None:
    if count == 0:
        raise CheckpointFormatError("the checkpoint holds no tensors", SAVE_HINT)
    if count > _MAX_TENSORS:
        raise UploadTooLargeError(f"the checkpoint holds {count} tensors; at most {_MAX_TENSORS} are taken")


def _check_dtype(key: str, dtype: str) -> None:
    if dtype not in NUMPY_DTYPES:
        known = ", ".join(NUMPY_DTYPES)
        raise CheckpointFormatError(f"tensor {key!r} has dtype {dtype}; taken are {known}")


def _check_finite(key: str, dtype: str, values: Any) -> None:
    if dtype == "BF16":
        finite = ((values & 0x7F80) != 0x7F80).all()  # an exponent of all ones is NaN or infinity
    elif dtype in ("F64", "F32", "F16"):
        finite = np.isfinite(values).all()
    else:
        return
    if not finite:
        raise CheckpointNotFiniteError(f"tensor {key!r} holds NaN or infinite values", "train or export it again")
