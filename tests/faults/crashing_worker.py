"""A worker, or an API, that dies in the middle: python crashing_worker.py METHOD before|after TIMES MARKS worker

METHOD is one of a repository; the process that calls it is killed when all it writes was sent and nothing was
committed, or right after the commit. TIMES: how often, over all processes of this worker, which leave a file each in
the folder MARKS.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from jobs.leases import LeaseRepository
from jobs.repository import JobRepository
from jobs.upkeep import Upkeep


def main() -> None:
    method, when, times, marks, *arguments = sys.argv[1:]
    owner = next(kind for kind in (LeaseRepository, Upkeep, JobRepository) if method in vars(kind))
    original = getattr(owner, method)
    within = threading.local()

    def marked(*args: object, **kwargs: object) -> object:
        within.method = True
        try:
            return original(*args, **kwargs)
        finally:
            within.method = False

    def crash(*_: object) -> None:
        folder = Path(marks)
        number = len([*folder.iterdir()])
        if getattr(within, "method", False) and number < int(times):
            (folder / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, method, marked)
    if when == "before":
        event.listen(Engine, "commit", crash)
    else:
        event.listen(Session, "after_commit", crash)
    sys.argv = ["temperd", *arguments]
    from temperd.__main__ import app

    app()


main()
