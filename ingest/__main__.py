"""python -m ingest WORKDIR: prepares the raw uploads of one job.

Reads WORKDIR/ingest.json: {"checkpoint": {"path", "filename", "sha256", "size"}, or null for training from scratch;
"data": the same, or null for a named dataset in one of the folders "datasets"}, and the "data" part of
WORKDIR/spec.json; writes WORKDIR/input/. How far it is goes to stdout, in JSON lines that supervisors log.
On refusal one JSON line goes to stdout, exit status 64; 70 when a process that helped was killed.
"""

from __future__ import annotations

import errno
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ingest.checkpoint import prepare_checkpoint
from ingest.checkpoint_errors import SAVE_HINT
from ingest.data import HINT, prepare_data
from ingest.datasets import find_dataset
from ingest.errors import CheckpointFormatError, DataFormatError, DiskFullError, IngestError
from ingest.pool import WorkerDiedError

EXIT_REFUSED, EXIT_LOST = 64, 70
_TELL_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Prepare one work folder; done again from the start if it was interrupted."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m ingest WORKDIR\n")
        return 2
    root = Path(arguments[0])
    request = json.loads((root / "ingest.json").read_text())
    options = json.loads((root / "spec.json").read_text())["data"]
    target = root / "input"
    target.mkdir(exist_ok=True)
    unexpected: IngestError = CheckpointFormatError("the checkpoint cannot be read", SAVE_HINT)
    try:
        if request["checkpoint"] is not None:
            prepare_checkpoint(_source(request["checkpoint"]), Path(request["checkpoint"]["path"]), target)
        unexpected = DataFormatError("the data cannot be read", HINT)
        folders = map(Path, request["datasets"])
        data = request["data"] or find_dataset(options["dataset"], folders)
        prepare_data(_source(data), Path(data["path"]), target, options, _Teller())
    except IngestError as error:
        return _refuse(error)
    except WorkerDiedError:
        traceback.print_exc()
        return EXIT_LOST
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            traceback.print_exc()
            return _refuse(unexpected)
        return _refuse(DiskFullError("the worker's disk is full", "free some space, then submit it again"))
    except Exception:  # noqa: BLE001 - hostile bytes find errors that nobody thought of; the upload is at fault
        traceback.print_exc()
        return _refuse(unexpected)
    return 0


def _refuse(error: IngestError) -> int:
    failure = {"type": "failure", "code": error.code, "blame": error.blame, "detail": error.detail, "hint": error.hint}
    # names in archives need not be valid text
    shown = {key: value.encode("utf-8", "backslashreplace").decode() for key, value in failure.items()}
    sys.stdout.write(json.dumps(shown) + "\n")
    return EXIT_REFUSED


def _source(upload: dict[str, Any]) -> dict[str, Any]:
    return {key: upload[key] for key in ("filename", "sha256", "size")}


class _Teller:
    """Says how far it is, once in a while: who says nothing for long is taken for hung."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, line: str) -> None:
        if time.monotonic() > self._told + _TELL_SECONDS:
            self._told = time.monotonic()
            sys.stdout.write(json.dumps({"type": "log", "line": line}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
