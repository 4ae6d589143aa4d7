"""What the names in a checkpoint's pickle stand for. Nothing here imports or calls what a pickle names.

Three functions and ten storages make tensors; some containers of the standard library, and the few other things that
training scripts save beside weights, become dicts, numbers or ``Skipped``. Every other name is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.checkpoint_errors import (
    SAVE_HINT,
    CheckpointBoundsError,
    CheckpointDtypeError,
    CheckpointPickledModuleError,
    CheckpointQuantizedError,
    CheckpointSparseError,
    CheckpointTensorKindError,
)
from ingest.errors import CheckpointNotPlainError

MAX_DIMENSIONS = 8
STORAGE_DTYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_QUANTIZED = {"QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage"}
_COMPLEX = {"ComplexFloatStorage", "ComplexDoubleStorage", "ComplexHalfStorage"}

_TENSORS = {"_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state"}
_BUILTINS = ("builtins", "__builtin__")  # of Python 3 and 2
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # of numpy 1 and 2
_DICTS = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    *((module, "dict") for module in _BUILTINS),
    *(  # a dict of hyper-parameters, of each age of Lightning
        (f"{module}", "AttributeDict")
        for module in (
            "lightning.fabric.utilities.data",
            "lightning_fabric.utilities.data",
            "lightning.pytorch.utilities.parsing",
            "pytorch_lightning.utilities.parsing",
        )
    ),
}
_SKIPPED = {
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("collections", "Counter"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("numpy", "ndarray"),
    *((module, "_reconstruct") for module in _MULTIARRAY),
    *((module, kind) for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
    *((module, kind) for module in _BUILTINS for kind in ("set", "frozenset", "list", "int", "float", "bytearray")),
    ("torch", "Size"),
    ("torch", "device"),
    *(("torch", kind) for kind in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    ("torch.torch_version", "TorchVersion"),
}
_SCALARS = {  # numpy's numbers, by the name that its dtypes are pickled under
    "f8": "<f8", "f4": "<f4", "f2": "<f2", "i8": "<i8", "i4": "<i4", "i2": "<i2", "i1": "|i1",
    "u8": "<u8", "u4": "<u4", "u2": "<u2", "u1": "|u1", "b1": "|b1",
}  # fmt: skip
# classes of whole models, known by where they live; a script's own live in __main__
_MODULES = ("torch.nn.", "torchvision.", "timm.", "transformers.", "ultralytics.", "models.", "__main__")


@dataclass(frozen=True)
class StorageRef:
    """A record ``data/KEY`` of the archive: a flat array of ``numel`` values."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A strided view of a storage."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Global:
    """A known name; a function or a class that is never looked up."""

    module: str
    name: str


class Skipped:
    """Something plain that is no number, text, dict or tensor, and is not kept."""


@dataclass(frozen=True)
class _NumpyDtype:
    name: str


def known_global(module: Any, name: Any) -> Global:
    """The name, if it is on the list.

    Raises: CheckpointNotPlainError, or the error of a tensor that is not taken.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise CheckpointNotPlainError("the checkpoint's pickle computes the name of an object", SAVE_HINT)
    pair = (module, name)
    if pair in _DICTS or pair in _SKIPPED or pair == ("_codecs", "encode") or pair == ("numpy", "dtype"):
        return Global(module, name)
    if (module == "torch" and name in STORAGE_DTYPES) or (module == "torch._utils" and name in _TENSORS):
        return Global(module, name)
    if module in _MULTIARRAY and name == "scalar":
        return Global(module, name)
    _refuse_tensors(module, name)
    shown = repr(f"{module}.{name}"[:100])[1:-1]
    if module.startswith(_MODULES):
        raise CheckpointPickledModuleError(f"the checkpoint holds a pickled object ({shown}), a whole model perhaps")
    raise CheckpointNotPlainError(
        f"the checkpoint holds a pickled object ({shown}), which only code could load", SAVE_HINT
    )


def _refuse_tensors(module: str, name: str) -> None:
    """Say of a tensor that is not taken what it is."""
    if module not in ("torch", "torch._utils", "torch._tensor", "torch.storage"):
        return
    if name in _QUANTIZED or name == "_rebuild_qtensor":
        raise CheckpointQuantizedError(f"the checkpoint holds a quantised tensor ({name})")
    if name in _COMPLEX or name in ("UntypedStorage", "_rebuild_tensor_v3"):
        raise CheckpointDtypeError(f"the checkpoint holds a tensor of a type that is not taken ({name})")
    if name.startswith("_rebuild_sparse"):
        raise CheckpointSparseError(f"the checkpoint holds a sparse tensor ({name})")
    if name.startswith("_rebuild"):
        raise CheckpointTensorKindError(f"the checkpoint holds a tensor without plain data ({name})")


def storage(reference: Any) -> StorageRef:
    """The storage that a persistent id names."""
    kind, made_of, key, _location, numel = reference
    if kind != "storage" or not isinstance(made_of, Global) or made_of.name not in STORAGE_DTYPES:
        raise ValueError("a persistent id that is no storage")
    if not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise ValueError("a storage with a malformed key or size")
    return StorageRef(key, STORAGE_DTYPES[made_of.name], numel)


def call(function: Any, arguments: Any) -> Any:
    """What a call of a known function stands for. Costs no more than the arguments' own size was."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is no function")
    pair, name = (function.module, function.name), function.name
    if pair in _SKIPPED:
        return Skipped()
    if pair in _DICTS:
        return _new_dict(name, arguments)
    if name == "_rebuild_tensor_v2":
        return _tensor(*arguments)
    if name in _TENSORS:
        if not isinstance(arguments[0], TensorRef):
            raise ValueError("a parameter around something that is no tensor")
        return arguments[0]
    if name == "encode":
        text, encoding = arguments
        # bytes in the protocols that have none; only a number's are wanted
        short = isinstance(text, str) and len(text) <= 16
        return text.encode("latin1") if short and encoding == "latin1" else Skipped()
    if name == "dtype":
        return _NumpyDtype(arguments[0]) if isinstance(arguments[0], str) else Skipped()
    if name == "scalar":
        return _scalar(*arguments)
    raise ValueError(f"a call of {name}")


def build(target: Any, state: Any) -> Any:
    """The target after BUILD. Every state dict sets ``_metadata`` on its OrderedDict; nothing else may be set."""
    if isinstance(target, Skipped):
        return target
    if isinstance(target, _NumpyDtype) and isinstance(state, tuple) and len(state) > 1:
        return target if state[1] in ("<", "|", "=") else Skipped()
    if (
        isinstance(target, dict)
        and isinstance(state, dict)
        and len(state) <= 1
        and all(k == "_metadata" for k in state)
    ):
        return target
    raise CheckpointNotPlainError("the checkpoint's pickle sets attributes on an object", SAVE_HINT)


def plain_key(key: Any) -> Any:
    """Keys are names or small integers.

    Hashing a deeply nested tuple would overflow the interpreter's stack; large numbers can be chosen so that all have
    the same hash, and a dict of them takes for ever.
    """
    if isinstance(key, str | None) or (isinstance(key, int) and abs(key) < 2**31):
        return key
    raise ValueError("a dict key that is neither a name nor a small integer")


def _new_dict(name: str, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty dict, or Python 2's ``OrderedDict([[key, value], ...])``, whose list is used up by it."""
    if name != "OrderedDict" or not arguments:
        return {}
    (items,) = arguments
    if not isinstance(items, list):
        raise ValueError("an OrderedDict of something that is no list")
    made = {plain_key(key): value for key, value in items}
    items.clear()  # or one long list could be copied a million times
    return made


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, _NumpyDtype) or dtype.name not in _SCALARS or not isinstance(content, bytes):
        return Skipped()
    return np.frombuffer(content, _SCALARS[dtype.name], 1)[0].item()


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _requires_grad: Any, _hooks: Any, metadata: Any = None
) -> TensorRef:
    if metadata:
        raise CheckpointTensorKindError("the checkpoint holds a tensor that is a negated or conjugated view")
    if not isinstance(storage, StorageRef) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor with malformed sizes")
    if max(len(shape), len(stride)) > MAX_DIMENSIONS:
        raise CheckpointBoundsError(f"a tensor with {len(shape)} dimensions; at most {MAX_DIMENSIONS} are taken")
    if len(shape) != len(stride):
        raise ValueError(f"a tensor with {len(shape)} sizes and {len(stride)} strides")
    if not all(type(size) is int and 0 <= size < 2**63 for size in (offset, *shape, *stride)):
        raise ValueError("a tensor with malformed sizes")
    return TensorRef(storage, offset, shape, stride)
