"""Files of other kinds that people send in place of a checkpoint."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.hostile.entry import Hostile, having
from tests.hostile.pickles import BEGIN, STOP, call, named, state_dict, text
from tests.hostile.zips import Member, pack, torch_zip


def _zip(names: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def _tar(names: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _legacy(path: Path) -> None:
    import torch

    torch.save({"a": torch.ones(4)}, path, _use_new_zipfile_serialization=False)


def _torchscript(path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def _module(path: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), path)


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.ones((2, 2)))


_HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 46830571\n"
)
_ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.14.1:\x80\x01" + b"\x0a\x10" * 40
_INDEX = b'{\n  "metadata": {"total_size": 100},\n  "weight_map": {"a": "model-00001-of-00002.safetensors"}\n}\n'
_JOBLIB = BEGIN + call(named("joblib.numpy_pickle", "NumpyArrayWrapper")) + STOP
# the records that torch.export.save writes
_EXPORTED = {
    "archive/data/weights/weight_0": bytes(16),
    "archive/data/weights/model_weights_config.json": b"{}",
    "archive/models/model.json": b"{}",
    "archive/data/sample_inputs/model.pt": b"PK",
    "archive/archive_format": b"pt2",
    "archive/archive_version": b"0",
    "archive/byteorder": b"little",
}
_TORCH = torch_zip(state_dict(), {"0": bytes(16)})

_FILES: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("empty", "model.pt", having(b""), "checkpoint_empty"),
    ("nothing-known", "model.pt", having(b"\xde\xad\xbe\xef" * 20), "checkpoint_format"),
    ("plain-text", "model.pt", having(b"the weights are in the other file\n"), "checkpoint_format"),
    ("legacy", "model.pth", _legacy, "checkpoint_legacy"),
    ("torchscript", "model.pt", _torchscript, "checkpoint_torchscript"),
    ("exported-program", "model.pt2", having(_zip(_EXPORTED)), "checkpoint_exported_program"),
    ("whole-module", "model.pth", _module, "checkpoint_pickled_module"),
    ("pickle-4", "model.pkl", having(pickle.dumps({"a": [1.0]}, 4)), "checkpoint_pickle"),
    ("pickle-0", "model.pkl", having(pickle.dumps({"a": [1.0]}, 0)), "checkpoint_pickle"),
    ("pickle-0-of-code", "model.pt", having(b"cos\nsystem\n(S'touch x'\ntR."), "checkpoint_pickle"),
    ("joblib", "model.joblib", having(_JOBLIB), "checkpoint_pickle"),
    ("pickle-before-a-zip", "model.pt", having(BEGIN + text("x") + STOP + _TORCH), "checkpoint_pickle"),
    ("pickle-named-safetensors", "model.safetensors", having(pickle.dumps([1], 2)), "checkpoint_pickle"),
    ("onnx", "model.onnx", having(_ONNX), "checkpoint_onnx"),
    ("onnx-named-pt", "model.pt", having(_ONNX), "checkpoint_onnx"),
    ("keras-h5", "model.h5", having(b"\x89HDF\r\n\x1a\n" + bytes(100)), "checkpoint_keras"),
    ("keras-zip", "model.keras", having(_zip({"config.json": b"{}", "model.weights.h5": b"x"})), "checkpoint_keras"),
    ("saved-model", "saved_model.pb", having(b"\x08\x01\x12\x90\x01" + bytes(50)), "checkpoint_tensorflow"),
    ("saved-model-zip", "model.zip", having(_zip({"m/saved_model.pb": b"x"})), "checkpoint_tensorflow"),
    ("tflite", "model.tflite", having(b"\x1c\0\0\0TFL3" + bytes(50)), "checkpoint_tensorflow"),
    ("tf-data", "model.ckpt.data-00000-of-00001", having(b"\x01\x02\x03\x04" * 9), "checkpoint_tensorflow"),
    ("npz", "model.npz", _npz, "checkpoint_numpy"),
    ("npy", "model.npy", having(b"\x93NUMPY\x01\0" + bytes(90)), "checkpoint_numpy"),
    ("gguf", "model.gguf", having(b"GGUF\x03\0\0\0" + bytes(60)), "checkpoint_gguf"),
    ("web-page", "model.pt", having(_HTML), "checkpoint_web_page"),
    (
        "xml-error",
        "model.pt",
        having(b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'),
        "checkpoint_web_page",
    ),
    ("lfs-pointer", "model.safetensors", having(_POINTER), "checkpoint_lfs_pointer"),
    ("shard-index", "model.safetensors.index.json", having(_INDEX), "checkpoint_sharded"),
    ("gzip", "model.pt.gz", having(gzip.compress(_TORCH, mtime=0)), "checkpoint_packed"),
    ("tar-of-a-folder", "model.tar", having(_tar({"run/model.pt": _TORCH})), "checkpoint_packed"),
    ("zip-of-a-folder", "run.zip", having(_zip({"run/model.pt": _TORCH, "run/log.txt": b"x"})), "checkpoint_packed"),
    ("zip-of-anything", "run.zip", having(_zip({"run/log.txt": b"x"})), "checkpoint_format"),
    ("encrypted-zip", "model.zip", having(pack([Member(b"model.pt", bytes(50), flags=1)])), "checkpoint_encrypted"),
    (
        "torch-package",
        "model.pt",
        having(_zip({"m/.data/extern_modules": b"os", "m/a.py": b"x"})),
        "checkpoint_exported_program",
    ),
]


def entries() -> list[Hostile]:
    """The corpus."""
    return [Hostile(name, filename, write, code, "checkpoint") for name, filename, write, code in _FILES]
