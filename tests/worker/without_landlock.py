"""temperd where the system refuses Landlock, as in a container with an old profile: python without_landlock.py serve"""

from __future__ import annotations

import errno

from worker.sandbox.kernel import no_new_privileges
from worker.sandbox.seccomp import install

no_new_privileges()
LOAD, EQUAL, RETURN, ALLOW, ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
install([(LOAD, 0, 0, 0), (EQUAL, 0, 1, 444), (RETURN, 0, 0, ERROR | errno.EPERM), (RETURN, 0, 0, ALLOW)])

from temperd.__main__ import app  # noqa: E402

app()
