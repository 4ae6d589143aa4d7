"""A worker that can write no file of more than so many bytes: python limited_worker.py BYTES worker"""

from __future__ import annotations

import resource
import sys

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
sys.argv = ["temperd", *sys.argv[2:]]

from temperd.__main__ import app  # noqa: E402

app()
