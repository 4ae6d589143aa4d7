"""python -m ingest WORKDIR: prepares the raw uploads of one job.

Reads WORKDIR/ingest.json: {"checkpoint": {"path", "filename", "sha256", "size"}, or null for training from scratch;
"data": the same, or null for a named dataset in "datasets_dir"}, and the "data" part of WORKDIR/spec.json; writes
WORKDIR/input/.
On refusal one JSON line goes to stdout, exit status 64.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
import zipfile
from pathlib import Path
from typing import Any

from ingest.archives import reading
from ingest.checkpoint import prepare_checkpoint
from ingest.datasets import find_dataset
from ingest.errors import CheckpointFormatError, DataFormatError, DiskFullError, IngestError
from ingest.image_folder import prepare_image_folder
from ingest.npz import prepare_npz
from ingest.pickle_walk import SAVE_HINT

EXIT_REFUSED = 64


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
        unexpected = DataFormatError("the data cannot be read", "npz, or an image folder as zip or tar")
        data = request["data"] or find_dataset(options["dataset"], Path(request["datasets_dir"]))
        _prepare_data(data, options, target)
    except IngestError as error:
        return _refuse(error)
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


def _prepare_data(upload: dict[str, Any], options: dict[str, Any], target: Path) -> None:
    path = Path(upload["path"])
    with reading(upload["filename"], DataFormatError, "npz, or an image folder as zip or tar"):
        kind = options["format"] or _guess(path)
    if kind == "npz":
        prepare_npz(_source(upload), path, target)
    else:
        prepare_image_folder(_source(upload), path, target, options)


def _guess(path: Path) -> str:
    """An npz is a zip whose members are .npy files; all else is taken for an image folder."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
    return "imagefolder"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
