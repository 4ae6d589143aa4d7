"""Where the code of a child lies, and what of the system it needs to run; found from the leash, which runs the same."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_ZONES = ("/etc/localtime", "/usr/share/zoneinfo")
_FACTS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
SYSTEM = (*_LIBRARIES, *_ZONES, *_FACTS, "/dev/urandom", "/dev/random", "/dev/zero")
_NAMES = ("/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf")
# gloo looks for network cards; and the numbers of its processes are not known yet
OF_RANKS = (*_NAMES, "/sys/class/net", "/sys/bus/pci", "/sys/devices", "/proc")
# what CUDA reads of its driver and of the machine, and nccl of how its GPUs are wired, nobody lists
OF_GPUS = ("/proc", "/sys", "/usr/share/nvidia", "/usr/local/cuda")
_DEVICES = ("nvidia*", "nvidia-caps/*", "dri/*")


def there(paths: Iterable[str | Path]) -> list[Path]:
    """Those that exist."""
    return [path for path in map(Path, paths) if path.exists()]


def gpus() -> list[Path]:
    """The device files of this machine's GPUs."""
    return [path for pattern in _DEVICES for path in Path("/dev").glob(pattern) if not path.is_dir()]


def code(hidden: Sequence[str]) -> list[Path]:
    """What may be read of the folders that Python imports from; see ``listed`` too.

    The interpreter's own folders and those of installed packages in whole. Of others, a checkout for one, what can be
    imported, since beside that there may be anything: a .env with passwords, or the data folder.
    """
    found = [Path(sys.prefix) / "pyvenv.cfg", *_installed()]
    found += [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    for folder in listed():
        if not any(folder.is_relative_to(place) for place in found):
            found += [path for path in folder.iterdir() if _importable(path, hidden)]
    return there(found)


def listed() -> list[Path]:
    """Folders that Python imports from: it looks which names are there."""
    return there(path for path in sys.path if path and Path(path).is_dir())


def _installed() -> Iterator[Path]:
    yield Path(sys.base_prefix) / "lib"
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name))
    yield from map(Path, site.getsitepackages())
    if site.ENABLE_USER_SITE:
        yield Path(site.getusersitepackages())


def _importable(path: Path, hidden: Sequence[str]) -> bool:
    """Modules and packages have names that are words; beside them lie .dist-info and .libs."""
    named = path.name.partition(".")[0].isidentifier() or path.suffix == ".dist-info"
    path, places = path.resolve(), [Path(place).resolve() for place in hidden]
    return named and not any(place.is_relative_to(path) or path.is_relative_to(place) for place in places)
