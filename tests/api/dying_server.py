"""temperd, killed in the moment after the first job's commit, before anybody is told; what starts again lives."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from jobs.repository import JobRepository
from temperd.__main__ import app

marker, create = Path(sys.argv.pop(1)), JobRepository.create


def create_and_die(*arguments, **keywords):
    job = create(*arguments, **keywords)
    if marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


JobRepository.create = create_and_die
app()
