"""Reads the pickle inside a zip-format checkpoint by walking its opcodes: nothing is imported or called.

A pickle is a program for a stack machine. This machine knows the few opcodes that ``torch.save`` of plain values and
tensors needs, and refuses all else. What it does is bounded by the number of opcodes: no opcode copies what another
one made, and nothing nested is ever hashed, compared, printed or walked.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from ingest.checkpoint_errors import SAVE_HINT, CheckpointIndexError, CheckpointTooComplexError
from ingest.errors import CheckpointNotPlainError
from ingest.pickle_values import build, call, known_global, plain_key, storage

_MAX_OPCODES = 1_000_000
_PROTOCOLS = range(2, 6)
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_WRAPPED = (b"\x0a\0\0\0state_dict", b"\x8c\x0astate_dict")  # the text, in either protocol
_UNWRAP_HINT = (
    'save the weights alone; of a file that you trust: torch.save(torch.load("old.pt", weights_only=False)'
    '["state_dict"], "checkpoint.pt")'
)


def walk(pickle: bytes) -> Any:
    """The value that the pickle describes: dicts, lists, tuples, numbers, texts, TensorRefs, Skipped.

    Raises: CheckpointNotPlainError for anything that would need code; CheckpointIndexError for a broken pickle;
    CheckpointTooComplexError; the error of a tensor that is not taken.
    """
    machine = _Machine(pickle)
    try:
        return machine.run()
    except CheckpointNotPlainError as error:
        if any(text in pickle for text in _WRAPPED):  # a training checkpoint: the weights alone are plain
            raise type(error)(error.detail, _UNWRAP_HINT) from error
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise CheckpointIndexError(f"the checkpoint's index is damaged: {str(error)[:200]}") from error


class _Machine:
    """The stack, the marks and the memo of one walk."""

    def __init__(self, pickle: bytes) -> None:
        self._pickle = pickle
        self._at = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Walk to the end, which must be the pickle's."""
        if self._pickle[:1] != b"\x80":
            raise ValueError("it does not begin with its protocol")
        for _ in range(_MAX_OPCODES):
            if self._at >= len(self._pickle):
                raise ValueError("it ends early")
            code = self._pickle[self._at]
            self._at += 1
            if code == 0x2E:  # STOP
                return self._finish()
            step = _STEPS.get(code)
            if step is None:
                name = _NAMES.get(code)
                if name is None:
                    raise ValueError(f"byte {code} is no opcode")
                raise CheckpointNotPlainError(f"the checkpoint's pickle uses the opcode {name}", SAVE_HINT)
            step(self)
        raise CheckpointTooComplexError(f"the checkpoint's index has more than {_MAX_OPCODES} steps")

    def _finish(self) -> Any:
        if self._at != len(self._pickle):
            raise ValueError("something follows its end")
        if self._below or len(self._stack) != 1:
            raise ValueError("it does not leave exactly one value")
        return self._stack[0]

    # --- bytes of the pickle

    def number(self, format_: str) -> Any:
        (value,) = struct.unpack_from(format_, self._pickle, self._at)
        self._at += struct.calcsize(format_)
        return value

    def content(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        if length < 0 or self._at > len(self._pickle):
            raise ValueError("it ends early")
        return self._pickle[start : self._at]

    def line(self) -> str:
        end = self._pickle.index(b"\n", self._at, self._at + 1000)
        text = self._pickle[self._at : end].decode()
        self._at = end + 1
        return text

    # --- the stack

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"items for something that is no {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    # --- opcodes

    def long(self) -> None:
        self.push(int.from_bytes(self.content(self.number("<B")), "little", signed=True))

    def protocol(self) -> None:
        if self.number("<B") not in _PROTOCOLS:
            raise ValueError("a protocol that does not exist, or is too old")

    def frame(self) -> None:
        if self.number("<Q") > len(self._pickle) - self._at:
            raise ValueError("a frame that is longer than what follows")

    def memoize(self, index: int | None = None) -> None:
        if index is not None and index > _MAX_OPCODES:
            raise ValueError("a place in the memo that no pickler uses")
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("too few values for a tuple")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self.push(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._set(key, value)

    def set_items(self) -> None:
        items = self.pop_to_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        target = self.top(dict)
        if plain_key(key) in target:
            raise ValueError(f"the key {str(key)[:100]!r} is set twice")
        target[key] = value

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def global_(self) -> None:
        module, name = self.line(), self.line()
        self.push(known_global(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(known_global(module, name))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(call(function, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        self.push(build(target, state))


_Step = Callable[[_Machine], None]


def _number(format_: str) -> _Step:
    return lambda machine: machine.push(machine.number(format_))


def _content(length: str) -> _Step:
    return lambda machine: machine.push(machine.content(machine.number(length)))


def _text(length: str) -> _Step:
    # lone surrogates pass here as in pickle; whoever keeps a text checks it
    return lambda machine: machine.push(machine.content(machine.number(length)).decode("utf-8", "surrogatepass"))


def _constant(make: Callable[[], Any]) -> _Step:
    return lambda machine: machine.push(make())


_STEPS: dict[int, _Step] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.protocol,
        "\x95": _Machine.frame,
        "N": _constant(lambda: None),
        "\x88": _constant(lambda: True),
        "\x89": _constant(lambda: False),
        "}": _constant(dict),
        "]": _constant(list),
        ")": _constant(tuple),
        "\x8f": _constant(list),  # EMPTY_SET: a list is as good, and hashes nothing
        "K": _number("<B"),
        "M": _number("<H"),
        "J": _number("<i"),
        "G": _number(">d"),
        "\x8a": _Machine.long,
        "X": _text("<I"),
        "\x8c": _text("<B"),
        "\x8d": _text("<Q"),
        "T": _text("<i"),  # texts of Python 2
        "U": _text("<B"),
        "B": _content("<I"),
        "C": _content("<B"),
        "\x8e": _content("<Q"),
        "q": lambda machine: machine.memoize(machine.number("<B")),
        "r": lambda machine: machine.memoize(machine.number("<I")),
        "\x94": _Machine.memoize,
        "h": lambda machine: machine.recall(machine.number("<B")),
        "j": lambda machine: machine.recall(machine.number("<I")),
        "(": _Machine.mark,
        "\x85": lambda machine: machine.tuple_of(1),
        "\x86": lambda machine: machine.tuple_of(2),
        "\x87": lambda machine: machine.tuple_of(3),
        "t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
        "\x91": lambda machine: machine.push(machine.pop_to_mark()),  # FROZENSET
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "a": _Machine.append,
        "e": _Machine.extend,
        "\x90": _Machine.extend,  # ADDITEMS
        "c": _Machine.global_,
        "\x93": _Machine.stack_global,
        "\x81": _Machine.reduce,  # NEWOBJ: a call of a class
        "Q": lambda machine: machine.push(storage(machine.pop())),
        "R": _Machine.reduce,
        "b": _Machine.build,
    }.items()
}  # fmt: skip
