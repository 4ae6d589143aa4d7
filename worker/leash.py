"""python -m worker.leash PARENT COMMAND...: becomes COMMAND, tied to the life of its parent.

The kernel kills this process when the parent thread ends, whatever the reason, so a killed worker leaves no
child behind. The setting survives exec. A lower priority keeps the API responsive beside training.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NICE = 5


def main(arguments: list[str]) -> None:
    """Put on the leash, then exec."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent died before the child started")
    os.nice(_NICE)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
