"""python -m ingest WORKDIR: prepares nothing; with the tag ``ingest: deaf`` it takes a while, and hears no SIGTERM."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

if json.loads((Path(sys.argv[1]) / "spec.json").read_text())["tags"].get("ingest") == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(4)
