"""Runs entries of a corpus in a process that is watched."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.entry import CANARY, Honest, Hostile

ROOT = Path(__file__).parents[2]
_HANG = 60  # seconds of wall time; what it may take is judged by processor time
_OPTIONS: Mapping[str, Any] = {
    "format": None,
    "dataset": None,
    "resize": None,
    "crop": None,
    "interpolation": "bilinear",
}


@dataclass(frozen=True)
class Outcome:
    """What ingest said and did.

    Args:
        status: its exit status; None if it was killed or an exception came out.
        failure: its answer to the user; None if it accepted the file.
        reports: what it should not have done, by the audit hook.
        canary: whether a payload ran.
        stderr: what it logged, a traceback for one.
        cpu_seconds: processor time.
        target: the folder that it wrote.
    """

    status: int | None
    failure: dict[str, str] | None
    reports: list[str]
    canary: bool
    stderr: str
    cpu_seconds: float
    target: Path


class Watched:
    """A watched process, started when first needed and again after one was lost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nest = folder / "nest"
        self._nest.mkdir()
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, entry: Hostile | Honest, parser: str = "ingest") -> Outcome:
        """Write the entry's file into a work folder of its own and have it parsed."""
        self._count += 1
        workdir = self._folder / f"{self._count}"
        workdir.mkdir()
        entry.write(workdir / "upload")
        upload = {
            "path": str(workdir / "upload"),
            "filename": entry.filename,
            "sha256": "0" * 64,
            "size": (workdir / "upload").stat().st_size,
        }
        data = upload if entry.kind == "data" else self._images(workdir)
        request = {
            "checkpoint": upload if entry.kind == "checkpoint" else None,
            "data": data,
            "datasets": [str(workdir)],
        }
        (workdir / "ingest.json").write_text(json.dumps(request))
        (workdir / "spec.json").write_text(json.dumps({"data": {**_OPTIONS, **entry.options}}))
        return self._outcome(self._answer({"workdir": str(workdir), "parser": parser}), workdir)

    def _images(self, workdir: Path) -> dict[str, Any]:
        """Data beside a checkpoint that is accepted."""
        path = workdir / "data.npz"
        x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
        np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        return {"path": str(path), "filename": "data.npz", "sha256": "0" * 64, "size": path.stat().st_size}

    def _answer(self, job: dict[str, str]) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _HANG)
        line = process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._stop()
        how = "it died" if ready else "it hung"
        return {"status": None, "stdout": "", "stderr": "", "reports": [how], "cpu_seconds": float(_HANG)}

    def _outcome(self, answer: dict[str, Any], workdir: Path) -> Outcome:
        canary = self._nest / CANARY
        sang = canary.exists() or any(self._nest.iterdir())
        for path in self._nest.iterdir():
            path.unlink()
        lines = answer["stdout"].splitlines()
        return Outcome(
            answer["status"],
            json.loads(lines[-1]) if lines else None,
            answer["reports"],
            sang,
            answer["stderr"],
            answer["cpu_seconds"],
            workdir / "input",
        )

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.watch", str(self._nest)],
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
