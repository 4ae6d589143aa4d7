"""python -m core run WORKDIR: the worker's child. Spec in, JSON-lines events on stdout, files in the work folder.

Exit status: 0 the report is in output/report.json; 64 a failure event was written; 75 stopped, state saved.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

EXIT_OK, EXIT_FAILED, EXIT_STOPPED = 0, 64, 75


def main(arguments: list[str]) -> int:
    """Run the job in a work folder."""
    if len(arguments) != 2 or arguments[0] != "run":
        sys.stderr.write("usage: python -m core run WORKDIR\n")
        return 2
    events = _claim_stdout()
    stop_asked = _watch_for_sigterm()

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    # torch comes with these: after the signal handler, so that a stop during its slow import is not lost
    from core.errors import OutOfMemoryError, RunError, Stopped, is_out_of_memory
    from core.prepared import Workdir
    from core.run import run
    from core.spec import JobSpec

    workdir = Workdir(Path(arguments[1]))

    def fail(error: RunError) -> int:
        emit(
            {
                "type": "failure",
                "code": error.code,
                "blame": error.blame,
                "detail": error.detail,
                "hint": error.hint,
            }
        )
        return EXIT_FAILED

    try:
        spec = JobSpec.model_validate_json(workdir.spec.read_bytes())
        report = run(spec, workdir, emit, lambda: stop_asked["now"])
    except Stopped:
        return EXIT_STOPPED
    except RunError as error:
        return fail(error)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was, the parent must hear of it
        traceback.print_exc()
        if is_out_of_memory(error):
            hint = "lower training.batch_size and evaluation.batch_size"
            return fail(OutOfMemoryError(f"out of memory: {error}", hint))
        return fail(
            RunError(f"an unexpected {type(error).__name__}", "a fault of the service; its log has the details")
        )
    workdir.output.mkdir(exist_ok=True)
    (workdir.output / "report.json").write_text(report.model_dump_json())
    emit({"type": "report", "file": "report.json"})
    return EXIT_OK


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
