"""python -m core run WORKDIR: the worker's child. Spec in, JSON-lines events on stdout, files in the work folder.
python -m core verify CERTIFICATE ...: for people; core.verify has what it takes.

Exit status of run: 0 the report is in output/report.json; 64 a failure event was written; 75 stopped, state saved;
70 one of several processes of the job was lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from core.log import log_line

if TYPE_CHECKING:
    from core.errors import RunError
    from core.parallel import Team

EXIT_OK, EXIT_FAILED, EXIT_LOST, EXIT_STOPPED = 0, 64, 70, 75

_FAILURE = "failure.json"  # in the ranks' scratch space

Emit = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    """Run the job in a work folder; ``rank`` is how it starts itself when the job asks for several devices."""
    match arguments:
        case ["run", folder]:
            devices = _devices(Path(folder))
            return _run_ranks(Path(folder), devices) if devices > 1 else _run(Path(folder))
        case ["rank", folder, launcher]:
            return _run_as_rank(Path(folder), int(launcher))
        case ["verify", *rest]:
            from core.verify import main as verify  # torch comes with it

            return verify(rest)
    sys.stderr.write("usage: python -m core run WORKDIR, or python -m core verify CERTIFICATE ...\n")
    return 2


def _run(folder: Path) -> int:
    emit = _emitter(_claim_stdout())
    stop_asked = _watch_for_sigterm()
    # torch comes with it: after the signal handler, so that a stop during its slow import is not lost
    from core.parallel import ALONE

    return work(folder, emit, emit, lambda: stop_asked["now"], ALONE)


def _run_ranks(folder: Path, devices: int) -> int:
    """One job in several processes; what they failed with is told once, when all are dead."""
    from core.launch import launch

    scratch = _scratch(folder)
    emit = _emitter(sys.stdout)
    try:
        statuses = launch(["-m", "core", "rank", str(folder)], devices, scratch)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was, the parent must hear of it
        emit(_failure(_understood(error)))
        return EXIT_FAILED
    if not statuses or statuses.get(0) == EXIT_STOPPED:
        return EXIT_STOPPED if statuses else EXIT_OK
    if not (scratch / _FAILURE).exists():
        return EXIT_LOST
    emit(json.loads((scratch / _FAILURE).read_text()))
    return EXIT_FAILED


def _run_as_rank(folder: Path, launcher: int) -> int:
    from core import launch

    launch.tie_to(launcher)
    events = _claim_stdout()
    import torch

    from core.parallel import Ranks

    def leave(failure: dict[str, Any]) -> None:
        with contextlib.suppress(FileExistsError), (_scratch(folder) / _FAILURE).open("x") as file:
            json.dump(failure, file)  # the first is the cause of the others

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    team = Ranks(rank, size, device, _scratch(folder) / "store")
    if team.leads:
        return work(folder, _emitter(events), leave, launch.asked_to_stop, team)
    return work(folder, lambda _: None, leave, lambda: False, team)


def work(folder: Path, emit: Emit, emit_failure: Emit, should_stop: Callable[[], bool], team: Team) -> int:
    """One job, by this process alone or as one of several ranks; returns its exit status.

    When a job ends before its time, all ranks end, and rank 0 says how.
    """
    from core.errors import LostRankError, RunError, Stopped
    from core.prepared import Workdir
    from core.run import run
    from core.spec import JobSpec

    workdir = Workdir(folder)
    try:
        spec = JobSpec.model_validate_json(workdir.spec.read_bytes())
        report = run(spec, workdir, emit, should_stop, team)
    except LostRankError:
        traceback.print_exc()
        return EXIT_LOST
    except (Stopped, RunError) as error:
        if team.leads and isinstance(error, RunError):
            emit_failure(_failure(error))
        with contextlib.suppress(LostRankError):
            team.tell(error)
            team.leave()
        ended = EXIT_STOPPED if isinstance(error, Stopped) else EXIT_FAILED
        return ended if team.leads else EXIT_OK
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was, the parent must hear of it
        emit_failure(_failure(_understood(error)))
        return EXIT_FAILED
    if team.leads:
        workdir.output.mkdir(exist_ok=True)
        (workdir.output / "report.json").write_text(report.model_dump_json())
        emit({"type": "report", "file": "report.json"})
    team.leave()
    return EXIT_OK


def _understood(error: Exception) -> RunError:
    """The error with a reason that a person can act on."""
    from core.errors import DiskFullError, OutOfMemoryError, RunError, is_disk_full, is_out_of_memory

    if isinstance(error, RunError):
        return error
    traceback.print_exception(error)
    if is_out_of_memory(error):
        return OutOfMemoryError(f"out of memory: {error}", "lower training.batch_size and evaluation.batch_size")
    if is_disk_full(error):
        return DiskFullError("the worker's disk is full", "free some space, then submit it again")
    return RunError(f"an unexpected {type(error).__name__}", "a fault of the service; its log has the details")


def _failure(error: RunError) -> dict[str, Any]:
    return {"type": "failure", "code": error.code, "blame": error.blame, "detail": error.detail, "hint": error.hint}


def _devices(folder: Path) -> int:
    """How many devices the spec asks for; a spec that cannot be read is told of by who reads all of it."""
    try:
        return int(json.loads((folder / "spec.json").read_bytes())["devices"])
    except (OSError, ValueError, TypeError, KeyError):
        return 1


def _scratch(folder: Path) -> Path:
    return folder / "ranks"


def _emitter(events: TextIO) -> Emit:
    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        line = log_line(event)
        if line is not None:
            events.write(json.dumps({"type": "log", "line": line}) + "\n")
        events.flush()

    return emit


def _claim_stdout() -> TextIO:
    """Keep stdout for events only: what libraries print goes to stderr."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return events


def _watch_for_sigterm() -> dict[str, bool]:
    asked = {"now": False}

    def stop(_signal: int, _frame: FrameType | None) -> None:
        asked["now"] = True

    signal.signal(signal.SIGTERM, stop)
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
