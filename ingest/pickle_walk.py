"""Reads the pickle inside a zip-format checkpoint by walking its opcodes: nothing is imported or called.

A pickle is a program for a stack machine. This machine knows the few opcodes and the few names that
``torch.save`` of a state dict needs, and builds plain values and TensorRefs from them; it refuses all else.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.errors import CheckpointFormatError, CheckpointNotPlainError

SAVE_HINT = 'save the weights alone: torch.save(model.state_dict(), "checkpoint.pt")'

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

_FUNCTIONS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
_MAX_OPCODES = 20_000_000


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
class _Global:
    module: str
    name: str


class _Mark:
    pass


def walk(pickle: bytes) -> Any:
    """The value that the pickle describes: dicts, lists, tuples, plain values and TensorRefs.

    Raises: CheckpointNotPlainError for anything that would need code; CheckpointFormatError for a broken pickle.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if count > _MAX_OPCODES:
                raise CheckpointFormatError("the checkpoint's index is too long")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise CheckpointFormatError(f"the checkpoint's index is damaged: {error}", SAVE_HINT) from error
    raise CheckpointFormatError("the checkpoint's index ends early", SAVE_HINT)


_PUSH_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_PUSH_CONSTANT: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": _Mark,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


class _Machine:
    """The stack and memo of the walk."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        stack = self.stack
        if name in _IGNORED:
            return
        if name in _PUSH_ARGUMENT:
            stack.append(argument)
        elif name in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "SETITEM":
            key, value = self._pop(2)
            self._dict()[_plain_key(key)] = value
        elif name == "SETITEMS":
            items = self._pop_to_mark()
            self._dict().update(zip(map(_plain_key, items[::2]), items[1::2], strict=True))
        elif name == "APPEND":
            (value,) = self._pop(1)
            self._list().append(value)
        elif name == "APPENDS":
            items = self._pop_to_mark()
            self._list().extend(items)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(_known_global(module, attribute))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            stack.append(_known_global(module, attribute))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            self._build()
        else:
            raise CheckpointNotPlainError(f"the checkpoint's pickle uses the opcode {name}", SAVE_HINT)

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("no mark")

    def _dict(self) -> dict[Any, Any]:
        if not isinstance(self.stack[-1], dict):
            raise TypeError("items set on something that is no dict")
        return self.stack[-1]

    def _list(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise TypeError("items appended to something that is no list")
        return self.stack[-1]

    def _build(self) -> None:
        """Every state dict sets ``_metadata`` on its OrderedDict; nothing else may be set on anything."""
        target, state = self._pop(2)
        if not isinstance(target, dict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise CheckpointNotPlainError("the checkpoint's pickle sets attributes on an object", SAVE_HINT)
        self.stack.append(target)


def _plain_key(key: Any) -> Any:
    """Keys are names or numbers: hashing a deeply nested tuple would overflow the interpreter's stack."""
    if not isinstance(key, str | int | float | bool | None):
        raise ValueError("a dict key that is neither a name nor a number")
    return key


def _known_global(module: Any, name: Any) -> _Global:
    if (module, name) in _FUNCTIONS or (module == "torch" and name in STORAGE_DTYPES):
        return _Global(module, name)
    raise CheckpointNotPlainError(
        f"the checkpoint holds a pickled object ({module}.{name}), which only code could load", SAVE_HINT
    )


def _storage(reference: Any) -> StorageRef:
    kind, storage, key, _location, numel = reference
    if kind != "storage" or not isinstance(storage, _Global) or storage.name not in STORAGE_DTYPES:
        raise ValueError("a persistent id that is no storage")
    if not isinstance(key, str) or not isinstance(numel, int) or numel < 0:
        raise ValueError("a storage with a malformed key or size")
    return StorageRef(key, STORAGE_DTYPES[storage.name], numel)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is no function")
    if function.name == "OrderedDict":
        items = arguments[0] if arguments else []
        return {_plain_key(key): value for key, value in items}
    if function.name == "_rebuild_parameter":
        if not isinstance(arguments[0], TensorRef):
            raise ValueError("a parameter around something that is no tensor")
        return arguments[0]
    if function.name == "_rebuild_tensor_v2":
        return _tensor(*arguments[:4])
    raise ValueError(f"a call of {function.name}")


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, StorageRef) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("a tensor with malformed sizes")
    if len(shape) != len(stride) or len(shape) > 8:
        raise ValueError(f"a tensor with {len(shape)} sizes and {len(stride)} strides")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))
