"""Does the sandbox hold here? A real child under real rules tries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.checks import OFF
from jobs.settings import Settings
from worker.child import environment
from worker.sandbox import landlock
from worker.sandbox.errors import SandboxError
from worker.sandbox.rules import Rules
from worker.sandbox.trial import OWN

_SECONDS = 60.0


def held_by() -> str:
    """What holds children in here: "landlock ABI 6, seccomp".

    Raises: SandboxError, if anything is missing, or does not hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        secret, own = Path(folder) / "secret", Path(folder) / "own"
        secret.write_text("secret")
        own.mkdir()
        python = [sys.executable, "-P", "-m"]
        rules = Rules(kind="ingest", read=(), write=(str(own),))
        leash = [*python, "worker.leash", str(os.getpid()), "-", rules.to_json()]
        command = [*leash, *python, "worker.sandbox.trial", str(secret), str(own)]
        trial = subprocess.run(
            command, env=environment(own), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    if trial.returncode != 0:
        raise SandboxError((trial.stderr.strip().splitlines() or [f"a trial ended with status {trial.returncode}"])[-1])
    possible = set(json.loads(trial.stdout))
    if escaped := possible - {OWN}:
        raise SandboxError(f"it does not hold: a trial could {', '.join(sorted(escaped))}")
    if OWN not in possible:
        raise SandboxError(f"it is too narrow: a trial could not {OWN}")
    return f"landlock ABI {landlock.version()}, seccomp"


def require(settings: Settings) -> str:
    """What ``/readyz`` shows of it: as ``held_by``, or "off" where the operator said so.

    Raises: SandboxError, with the words that switch it off.
    """
    if settings.sandbox != "required":
        return OFF
    try:
        return held_by()
    except (SandboxError, OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(
            f"there is no sandbox for uploads and training: {error}. docs/deploy.md says what it needs; "
            "TEMPER_SANDBOX=off-i-understand-the-risk runs jobs without"
        ) from error
