"""The sandbox: real children under real rules try to get out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from worker.child import environment
from worker.files import FOLDERS
from worker.sandbox import syscalls
from worker.sandbox.landlock import version
from worker.sandbox.network import ephemeral_ports
from worker.sandbox.rules import Rules, engine_rules, ingest_rules

GIB = 2**30
PYTHON = [sys.executable, "-P"]
KINDS = ["ingest", "engine", "ranks"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What is none of the child's own: files, and sockets that somebody listens on."""
    root = tmp_path_factory.mktemp("data")
    files = ["store/file", "home/.netrc", *(f"work/{each}/{name}" for each in ("own", "other") for name in ATTEMPT)]
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    for name in FOLDERS:
        (root / "work" / "own" / name).mkdir()
    with ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory())  # names of sockets may not be long
        abstract = f"\0{Path(short).name}"
        yield {
            **{"store": str(root / "store"), "home": str(root / "home"), "own": str(root / "work" / "own" / "input")},
            **{"other": str(root / "work" / "other"), "temporary": f"{short}/file"},
            "port": listen_as_a_service(stack, socket.AF_INET, "127.0.0.1"),
            "port6": listen_as_a_service(stack, socket.AF_INET6, "::1"),
            "socket": listen(stack, socket.AF_UNIX, f"{short}/stream"),
            "abstract": listen(stack, socket.AF_UNIX, f"{abstract}-stream"),
            "datagrams": listen(stack, socket.AF_UNIX, f"{short}/datagrams", socket.SOCK_DGRAM),
            "abstract datagrams": listen(stack, socket.AF_UNIX, f"{abstract}-datagrams", socket.SOCK_DGRAM),
            "unused port": unused_port(),
            "neighbour": neighbour(stack),
        }


ATTEMPT = ("spec.json", "ingest.json", "checkpoint", "data")


def listen(stack, family, address, kind=socket.SOCK_STREAM):
    each = stack.enter_context(socket.socket(family, kind))
    each.bind(address)
    if kind == socket.SOCK_STREAM:
        each.listen()
    name = each.getsockname()
    return name.decode() if isinstance(name, bytes) else name


def listen_as_a_service(stack, family, host):
    """On a port that the kernel gives to nobody who asks for any."""
    for port in range(20_000, ephemeral_ports().start):
        with suppress(OSError):
            return listen(stack, family, (host, port))[1]
    raise AssertionError("no port is free")


def unused_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


NEIGHBOUR = """
import sys
from worker.sandbox.kernel import drop_capabilities
drop_capabilities()
print(flush=True)
sys.stdin.read()
"""


def neighbour(stack):
    """A process with no capabilities: root's others are held from a child by those that they have."""
    command = [*PYTHON, "-c", NEIGHBOUR]
    each = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    each.stdout.readline()
    return each.pid


def rules_of(kind: str, places: dict) -> Rules:
    """As the supervisor makes them."""
    own = Path(places["own"]).parent
    hidden = [own.parents[1]]
    if kind == "ingest":
        return ingest_rules(own, own / "home-ingest", [own / "checkpoint", own / "data"], hidden, 4 * GIB)
    return engine_rules(own, own / "home-core", hidden, devices=1 if kind == "engine" else 2, from_scratch=False)


def run(rules: Rules | None, *command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A child, by the leash."""
    leash = [*PYTHON, "-m", "worker.leash", str(os.getpid()), "-", rules.to_json() if rules else "-"]
    return subprocess.run(
        [*leash, *PYTHON, *command], env=environment(home), capture_output=True, text=True, timeout=120, check=False
    )


GROUPS = {
    "ingest": ["files", "sockets", "of ingest", "alone", "processes"],
    "engine": ["files", "sockets", "of engines", "alone", "processes"],
    "ranks": ["files", "sockets", "of engines", "processes"],
}
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EXDEV"}
UNREACHABLE = {"ECONNREFUSED", "ENETUNREACH"}  # in a network of its own
NOT_EVERYWHERE = {"call by x32", "call what is too new"}
# of Landlock, for ranks: an older one leaves these open, the ports where ranks get no network of their own
OPEN_BEFORE = {"connect to a port": 4, "connect by IPv6": 4, "listen on a port": 4, "signal the parent": 6}
CAP_SYS_ADMIN = 1 << 21


def tried(rules: Rules | None, places: dict, groups: list[str]) -> dict[str, str]:
    arguments = json.dumps({**places, "groups": groups, "free": rules is None})
    done = run(rules, "-m", "tests.worker.escapes", arguments, home=Path(places["home"]))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_no_way_out(kind, places):
    refused = REFUSED | UNREACHABLE if kind == "ranks" else REFUSED
    ends = tried(rules_of(kind, places), places, GROUPS[kind])
    out = {name for name, end in ends.items() if end not in refused}
    assert out <= {name for name, abi in OPEN_BEFORE.items() if kind == "ranks" and version() < abi}


BESIDE = """
import os, sys
from ingest import pool
pool._ALONE = 0
told = b"setattr(__import__('sys'), 'argv', ['', %r])" % sys.argv[1]
done = b"__import__('tests.worker.escapes').worker.escapes.ends().encode()"
jobs = iter([b"b''", b"(%b, %b)[1]" % (told, done)])  # the first one is done here
sys.stdout.write(b"".join(pool.ordered(eval, jobs, 2)).decode())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core needs no help")
def test_no_way_out_for_who_helps_ingest(places):
    """A process of its own, which waits outside until it is told something."""
    rules = rules_of("ingest", places)
    arguments = json.dumps({**places, "groups": GROUPS["ingest"], "free": False})
    done = run(rules, "-c", BESIDE, arguments, home=Path(places["home"]))
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert len(ends) == len(tried(rules, places, GROUPS["ingest"]))
    assert [name for name, end in ends.items() if end not in REFUSED] == []


def may_everything():
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) & CAP_SYS_ADMIN)


@pytest.mark.skipif(not may_everything(), reason="who is not root is refused some of it anyway")
def test_without_the_sandbox_these_are_ways_out(places):
    """Or the tests above would prove nothing."""
    ends = tried(None, places, [*dict.fromkeys(group for groups in GROUPS.values() for group in groups)])
    Path(__file__).with_name("planted.py").unlink()
    refused = {name for name, end in ends.items() if end in REFUSED | UNREACHABLE}
    assert refused <= NOT_EVERYWHERE


def test_what_it_is_to_read_and_write_it_can(places):
    for kind in KINDS:
        rules = rules_of(kind, places)
        code = f"""
from pathlib import Path
for name in {rules.read!r}:
    if Path(name).is_file(): Path(name).read_bytes()
for name in {rules.write!r}:
    (Path(name) / "new").write_bytes(b"x")
    (Path(name) / "new").rename(Path(name) / "renamed")
    (Path(name) / "folder").mkdir()
    (Path(name) / "folder").rmdir()
    (Path(name) / "renamed").unlink()
import tempfile
assert tempfile.gettempdir() == str(Path.home()) and tempfile.TemporaryFile()
"""
        home = Path(rules.write[-1])
        done = run(rules, "-c", code, home=home)
        assert (done.returncode, done.stderr) == (0, "")


def test_root_is_an_ordinary_user_in_it(places):
    code = "print(open('/proc/self/status').read())"
    lines = run(rules_of("engine", places), "-c", code, home=Path("/")).stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if line)
    kinds = ("Inh", "Prm", "Eff", "Amb", *(["Bnd"] if os.geteuid() == 0 else []))  # only root has bounds to lower
    assert {status[f"Cap{kind}"] for kind in kinds} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


MIB = 2**20


@pytest.mark.parametrize(
    ("limits", "code", "told"),
    [
        ({"data": 200 * MIB}, f"bytearray({300 * MIB})", "MemoryError"),
        ({"data": 200 * MIB}, f"import numpy; numpy.ones({300 * MIB}, 'u1')", "MemoryError"),
        ({"fsize": MIB}, "open('file', 'wb').write(bytes(2 * 2**20))", "File too large"),
        ({"nofile": 32}, "kept = [open('/dev/null') for _ in range(40)]", "Too many open files"),
        ({}, "import os\nwhile True: os.fork()", "Operation not permitted"),
    ],
    ids=["memory", "memory of numpy", "files", "open files", "processes"],
)
def test_limits(limits, code, told, tmp_path):
    rules = Rules(kind="ingest", read=(), write=(str(tmp_path),), limits=limits)
    done = run(rules, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}", home=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]


def test_the_limit_of_processor_time(tmp_path):
    rules = Rules(kind="ingest", read=(), write=(str(tmp_path),), limits={"cpu": 1})
    assert run(rules, "-c", "while True: pass", home=tmp_path).returncode == -signal.SIGXCPU


def test_files_larger_than_the_limit_of_memory_can_be_mapped(tmp_path):
    rules = Rules(kind="ingest", read=(), write=(str(tmp_path),), limits={"data": 200 * MIB})
    code = f"import numpy; numpy.lib.format.open_memmap({str(tmp_path / 'x.npy')!r}, 'w+', 'u1', (10**9,))[-1] = 1"
    assert run(rules, "-c", code, home=tmp_path).returncode == 0


OLDER = """
import sys
import worker.sandbox.confine as confine, worker.sandbox.landlock as landlock
from worker.sandbox.rules import Rules
landlock.version = lambda: {abi}
confine.confine(Rules.from_json(sys.argv[1]))
from pathlib import Path
own = Path(sys.argv[2])
(own / "file").write_text("own")
(own / "file").rename(own / "renamed")
for way in (Path(sys.argv[3]).read_bytes, lambda: Path(sys.argv[3]).write_text(""), __import__("socket").socket):
    try: way()
    except PermissionError: continue
    raise SystemExit("a way out")
"""


@pytest.mark.parametrize("abi", range(1, version() + 1))
def test_kernels_that_know_less(abi, tmp_path):
    """The rules as an older kernel would get them."""
    own, secret = tmp_path / "own", tmp_path / "secret"
    own.mkdir()
    secret.write_text("secret")
    rules = Rules(kind="engine", read=(), write=(str(own),)).to_json()
    command = [*PYTHON, "-c", OLDER.format(abi=abi), rules, str(own), str(secret)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


WITHOUT_A_NETWORK = """
import socket, sys
import worker.sandbox.confine as confine
from worker.sandbox.network import ephemeral_ports
from worker.sandbox.rules import Rules
confine.enter_own_network = lambda: False
confine.confine(Rules.from_json(sys.argv[1]))
here = socket.create_server(("127.0.0.1", 0))
socket.create_connection(here.getsockname())
for way in (lambda: socket.create_server(("127.0.0.1", 8000)), lambda: socket.create_connection(("127.0.0.1", 5432))):
    try: way()
    except PermissionError: continue
    raise SystemExit("a way out")
"""


@pytest.mark.skipif(version() < 4, reason="this kernel's Landlock knows no ports")
def test_ranks_where_the_system_gives_them_no_network_of_their_own(tmp_path):
    """They reach each other, and no port that a service has."""
    rules = Rules(kind="ranks", read=(), write=(str(tmp_path),)).to_json()
    done = subprocess.run([*PYTHON, "-c", WITHOUT_A_NETWORK, rules], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_lies_around_the_code_is_not_read(tmp_path):
    """A checkout may hold passwords, and the data folder."""
    code, data = tmp_path / "code", tmp_path / "code" / "data"
    (code / "package").mkdir(parents=True)
    data.mkdir()
    for name in ("package/__init__.py", ".env", "data/file"):
        (code / name).write_text("")
    rules = Rules(kind="ingest", read=(), write=(str(tmp_path / "code" / "package"),), hidden=(str(data),))
    program = """
import package, sys
from pathlib import Path
for name in (".env", "data/file"):
    try: (Path(sys.argv[1]) / name).read_text()
    except PermissionError: continue
    raise SystemExit(name)
"""
    command = [*PYTHON, "-m", "worker.leash", str(os.getpid()), "-", rules.to_json(), *PYTHON, "-c", program, str(code)]
    passed = {**environment(tmp_path), "PYTHONPATH": str(code)}
    done = subprocess.run(command, env=passed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}
BOMB = """
import os, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
except BlockingIOError:
    os.kill(0, 9)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become an ordinary user")
def test_ranks_of_an_ordinary_user_cannot_fill_the_machine():
    own = tempfile.mkdtemp()
    os.chown(own, NOBODY["user"], NOBODY["group"])
    rules = Rules(kind="ranks", read=(), write=(own,), limits={"nproc": 50})
    program = "import os, sys; from worker.leash import main; main([str(os.getppid()), '-', *sys.argv[1:]])"
    command = [SYSTEM_PYTHON, "-P", "-c", program, rules.to_json(), SYSTEM_PYTHON, "-P", "-c", BOMB]
    passed = {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": own}
    may = subprocess.run([*command[:3], "import worker.leash"], env=passed, capture_output=True, check=False, **NOBODY)
    if may.returncode != 0:
        pytest.skip("an ordinary user cannot run this code here")
    done = subprocess.run(command, env=passed, start_new_session=True, timeout=60, check=False, **NOBODY)
    shutil.rmtree(own)
    assert done.returncode == -signal.SIGKILL, "by itself, when it could start no more"


def test_it_knows_no_credentials(monkeypatch, tmp_path):
    for name in ("AWS_SECRET_ACCESS_KEY", "TEMPER_DATABASE_URL", "GOOGLE_APPLICATION_CREDENTIALS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "secret")
    found = environment(tmp_path)
    assert "secret" not in found.values()
    assert found["HOME"] == found["TMPDIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_of_system_calls_are_the_kernels(machine, header):
    if not Path(header).exists():
        pytest.skip("no headers of the kernel")
    text = Path(header).read_text()
    theirs = {name: int(number) for name, number in re.findall(r"define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    ours = {**syscalls.never(machine), **syscalls.sometimes(machine)}
    assert len(ours) > 100
    assert {name: number for name, number in ours.items() if theirs.get(name, number) != number} == {}
    newer = {"fchmodat2"}  # than some headers
    assert ours.keys() - theirs.keys() <= newer
