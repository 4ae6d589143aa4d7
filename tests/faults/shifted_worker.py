"""A worker whose clock is wrong: python shifted_worker.py SECONDS worker"""

from __future__ import annotations

import sys
import time

OFF = float(sys.argv[1])
_true = time.time
time.time = lambda: _true() + OFF  # everything that asks Python for the time: ours, Celery's, the libraries'


def main() -> None:
    from temperd.__main__ import app

    sys.argv = ["temperd", *sys.argv[2:]]
    app()


main()
