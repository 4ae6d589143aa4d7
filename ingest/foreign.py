"""Says of a file that is no checkpoint what it is instead, so that its owner knows the way from there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ingest.checkpoint_errors import (
    SAVE_HINT,
    CheckpointEmptyError,
    CheckpointEncryptedError,
    CheckpointExportedProgramError,
    CheckpointGgufError,
    CheckpointKerasError,
    CheckpointLegacyError,
    CheckpointLfsPointerError,
    CheckpointNumpyError,
    CheckpointOnnxError,
    CheckpointPackedError,
    CheckpointPickleError,
    CheckpointShardedError,
    CheckpointTensorFlowError,
    CheckpointTorchScriptError,
    CheckpointWebPageError,
)
from ingest.errors import CheckpointFormatError, IngestError
from ingest.stored_zip import Record

HEAD = 512  # bytes that describe_foreign needs

# torch's magic number, which begins every file of its format before 1.6, as a pickle of any protocol
_LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")
_BEGINNINGS: tuple[tuple[bytes, type[IngestError], str], ...] = (
    (b"version https://git-lfs.github.com/", CheckpointLfsPointerError, "a Git LFS pointer in place of the file"),
    (b"\x89HDF\r\n\x1a\n", CheckpointKerasError, "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", CheckpointNumpyError, "a numpy array"),
    (b"GGUF", CheckpointGgufError, "a GGUF file"),
    (b"\x1f\x8b", CheckpointPackedError, "compressed by gzip"),
    (b"BZh", CheckpointPackedError, "compressed by bzip2"),
    (b"\xfd7zXZ\0", CheckpointPackedError, "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", CheckpointPackedError, "compressed by zstd"),
    (b"7z\xbc\xaf\x27\x1c", CheckpointPackedError, "a 7z archive"),
    (b"Rar!\x1a\x07", CheckpointPackedError, "a RAR archive"),
    (b"\x08\x01\x12", CheckpointTensorFlowError, "a TensorFlow SavedModel"),
)
_ONNX = re.compile(rb"\x08[\x02-\x1f](\x12.[ -~]|\x3a|\x42|\x1a)", re.DOTALL)  # its version, then a maker or a graph
_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|error)", re.IGNORECASE)
_TENSORFLOW_NAME = re.compile(r"\.(pb|tflite|ckpt\.index|data-\d+-of-\d+)$", re.IGNORECASE)
_OLD_PICKLE = re.compile(rb"[(\]}]|[ci][A-Za-z_][\w.]*\n")  # protocols 0 and 1 have no magic


def describe_foreign(filename: str, head: bytes, last: bytes) -> IngestError:
    """The error for a file that is neither safetensors nor zip.

    Args:
        filename: what its owner calls it.
        head: its first HEAD bytes.
        last: its last byte.
    """
    if not head:
        return CheckpointEmptyError(f"{filename} is empty")
    for beginning, error, words in _BEGINNINGS:
        if head.startswith(beginning):
            return error(f"{filename} is {words}")
    if head[257:262] == b"ustar":
        return CheckpointPackedError(f"{filename} is a tar archive")
    if _LEGACY in head[:20]:
        return CheckpointLegacyError(f"{filename} is in torch's legacy format, several pickles in a row")
    if head[:1] == b"\x80":
        return CheckpointPickleError(f"{filename} is a pickle that torch.save did not write")
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return CheckpointWebPageError(f"{filename} is a web page")
    if head[4:8] == b"TFL3" or _TENSORFLOW_NAME.search(filename):
        return CheckpointTensorFlowError(f"{filename} is a file of TensorFlow's")
    if _ONNX.match(head) or filename.lower().endswith(".onnx"):
        return CheckpointOnnxError(f"{filename} is an ONNX model")
    if (head.lstrip()[:1] == b"{" and b'"weight_map"' in head) or filename.endswith(".index.json"):
        return CheckpointShardedError(f"{filename} is the index of a checkpoint in several files")
    if last == b"." and _OLD_PICKLE.match(head):
        return CheckpointPickleError(f"{filename} is a pickle that torch.save did not write")
    return CheckpointFormatError(f"{filename} is neither safetensors nor a zip-format .pt file", SAVE_HINT)


def refuse_foreign_zip(records: Sequence[Record]) -> None:
    """Refuse zip files that torch.save did not write, by the names in them.

    Raises: the error of what it is.
    """
    if any(record.encrypted for record in records):
        raise CheckpointEncryptedError("a zip file with a password")
    names = [record.name.decode("utf-8", "replace") for record in records]
    inner = {name.partition("/")[2] for name in names}
    leaves = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise CheckpointTorchScriptError("a TorchScript archive, which is code")
    exported = {"serialized_exported_program.json", "archive_format", "archive_version", "extern_modules"}
    if leaves & exported:
        raise CheckpointExportedProgramError("an exported program or a torch package, which is code")
    if "data.pkl" in inner:
        return
    if "model.weights.h5" in leaves:
        raise CheckpointKerasError("a Keras archive")
    if "saved_model.pb" in leaves:
        raise CheckpointTensorFlowError("a zipped TensorFlow SavedModel")
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointNumpyError("an npz file (no data.pkl)")
    if any(name.endswith((".pt", ".pth", ".ckpt", ".bin", ".safetensors", "/data.pkl")) for name in names):
        raise CheckpointPackedError("a zip file with a checkpoint inside")
    raise CheckpointFormatError("a zip file, but not one that torch.save wrote (no data.pkl)", SAVE_HINT)
