"""python -m tests.hostile.watch FOLDER: runs ingest on one work folder after another, and tells of all it does.

Reads lines {"workdir", "parser"} from stdin and answers each with a line {"status", "stdout", "stderr", "reports",
"cpu_seconds"}. FOLDER becomes the working directory, so that a canary turns up there. ``reports`` is what an audit
hook saw that ingest has no business doing: it knows what is allowed, and tells of everything else. Nothing sandboxes
this process but a limit on its memory: what ingest does here, it does by itself.
"""

from __future__ import annotations

import contextlib
import io
import json

# loaded when they are first needed, and compiled then where they are new: what that does is not ingest's doing
import os
import pickle
import resource
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# isort: off
from ingest.__main__ import main as ingest
import multiprocessing.popen_fork  # noqa: F401 - these are loaded when they are first needed; that is not watched
import numpy.ma
import numpy.random  # noqa: F401
import PIL.MpoImagePlugin
import PIL.TiffImagePlugin  # noqa: F401
import pyarrow.parquet  # noqa: F401
# isort: on

_MEMORY = 2**30  # bytes beyond what the process has after its imports
# modules that what ingest uses imports when it is first needed, and where modules lie
_IMPORTS = ("encodings.", "numpy.", "PIL.", "pyarrow.")
_PLACES = tuple(f"{Path(place).resolve()}/" for place in sysconfig.get_paths().values())
# harmless, and everywhere
_SILENT = {"sys._getframe", "object.__getattr__", "builtins.id", "mmap.__new__", "array.__new__"}
_SILENT |= {"os.fork", "_thread.start_new_thread", "_thread.start_joinable_thread"}  # which help to decode
# events whose first argument, or first two, are paths or descriptors
_ONE_PATH = {"open", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.truncate", "shutil.rmtree"}
_TWO_PATHS = {"os.rename", "shutil.copyfile", "shutil.move"}


class Watch:
    """An audit hook, asleep until it is given a work folder."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self._workdir: str | None = None
        sys.addaudithook(self._heard)

    @contextlib.contextmanager
    def over(self, workdir: Path) -> Iterator[None]:
        """Watch while the body runs."""
        self.reports, self._workdir = [], str(workdir)
        try:
            yield
        finally:
            self._workdir = None

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        workdir = self._workdir
        if workdir is None or event in _SILENT or _allowed(event, arguments, workdir):
            return
        self._workdir = None  # what the report itself does is not told
        try:
            self.reports.append(f"{event} {str(arguments)[:200]}")
        finally:
            self._workdir = workdir


def _allowed(event: str, arguments: tuple[Any, ...], workdir: str) -> bool:
    if event == "import":
        return str(arguments[0]).startswith(_IMPORTS)
    if event in _ONE_PATH | _TWO_PATHS:
        paths = arguments[: 2 if event in _TWO_PATHS else 1]
        if all(_lies_in(path, workdir) for path in paths):
            return True
        return event in ("open", "os.listdir") and _importing() and str(paths[0]).startswith(_PLACES)
    if event == "compile":  # ast.literal_eval, which reads npy headers, parses and does not run
        return arguments[1] == "<unknown>" or _importing()
    if event == "exec":
        return str(arguments[0].co_filename).startswith(_PLACES)
    return event in ("marshal.loads", "object.__setattr__") and _importing()


def _lies_in(path: Any, folder: str) -> bool:
    if isinstance(path, int):  # a descriptor, opened before
        return True
    return os.path.realpath(os.fsdecode(path)).startswith(folder + "/")


def _importing() -> bool:
    """Whether the import machinery is at work; which module it may import was judged before."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap_external>":
            return True
        frame = frame.f_back
    return False


def _load_unsafely(arguments: list[str]) -> int:
    """What a careless service would do; shows that the watch and the canaries work."""
    pickle.loads((Path(arguments[0]) / "upload").read_bytes())
    return 0


_PARSERS: dict[str, Callable[[list[str]], int]] = {"ingest": ingest, "unsafe": _load_unsafely}


def _run(watch: Watch, job: dict[str, Any]) -> dict[str, Any]:
    workdir, parser = Path(job["workdir"]).resolve(), _PARSERS[job["parser"]]
    out, err, status = io.StringIO(), io.StringIO(), None
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with watch.over(workdir):
                status = parser([str(workdir)])
        except BaseException:  # noqa: BLE001 - all that comes out of a parser is a finding
            traceback.print_exc()
    return {
        "status": status,
        "stdout": out.getvalue(),
        "stderr": err.getvalue(),
        "reports": watch.reports,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a payload prints must not look like an answer
    os.chdir(sys.argv[1])
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    watch = Watch()
    for line in sys.stdin:
        answers.write(json.dumps(_run(watch, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
