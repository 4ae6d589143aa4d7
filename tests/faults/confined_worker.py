"""A worker in a control group: python confined_worker.py FOLDER worker"""

from __future__ import annotations

import os
import sys
from pathlib import Path

(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
sys.argv = ["temperd", *sys.argv[2:]]

from temperd.__main__ import app  # noqa: E402

app()
