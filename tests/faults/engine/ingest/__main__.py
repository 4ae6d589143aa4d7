"""python -m ingest WORKDIR: prepares nothing.

With the tag ``ingest: deaf`` it takes a while, and hears no SIGTERM; with ``ingest: slow`` it has used up its time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

asked = json.loads((Path(sys.argv[1]) / "spec.json").read_text())["tags"].get("ingest")
if asked == "slow":
    os.kill(os.getpid(), signal.SIGXCPU)
if asked == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(4)
