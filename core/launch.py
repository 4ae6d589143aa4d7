"""Starts the ranks of a job through torch's own launcher, and is the one process that the supervisor sees.

Ranks are processes on this machine that meet at a file and talk over the loopback interface: nothing listens to the
network. They die with the launcher, and the launcher ends them all when one dies. Their stdin is a pipe that the
launcher holds open; its end asks to stop, however early: a signal could hit a rank that is not ready for it.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_STDIN = 0

Statuses = dict[int, int]


def launch(command: list[str], devices: int, folder: Path) -> Statuses:
    """Run ``python COMMAND... LAUNCHER_PID`` as so many ranks; SIGTERM asks them to stop.

    Args:
        folder: their scratch space, made empty.
    Returns: exit status by rank of those that did not end with 0, negative for a signal. The launcher ends the others
        when a rank fails, so several may be named.
    Raises: TooFewDevicesError.
    """
    stdin, stop = os.pipe()
    os.dup2(stdin, _STDIN)
    asking = os.fdopen(stop, "w")
    signal.signal(signal.SIGTERM, lambda *_: asking.close())
    shutil.rmtree(folder, ignore_errors=True)  # all that is in it; in the sandbox it stays itself
    folder.mkdir(exist_ok=True)
    # torch comes with these: after the signal handler, so that a stop during its slow import is not lost
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    check_devices(devices)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // devices)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / "launcher"),
        rdzv_configs={"store_type": "file"},
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        signals_to_handle="SIGUSR2",  # it needs one; by default it would take SIGTERM, and pass it on
    )
    safe_path = ["-P"] if sys.flags.safe_path else []
    try:
        elastic_launch(config, sys.executable)(*safe_path, *command, str(os.getpid()))
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    finally:
        asking.close()
    return {}


def check_devices(devices: int) -> None:
    """Each rank needs a GPU of its own, unless there is none at all.

    Raises: TooFewDevicesError.
    """
    import torch

    from core.errors import TooFewDevicesError

    there = torch.cuda.device_count()
    if torch.cuda.is_available() and there < devices:
        raise TooFewDevicesError(f"the job asks for {devices} devices, there are {there}", f"set devices to {there}")


def tie_to(launcher: int) -> None:
    """Let the kernel kill this rank when its launcher dies, whatever the reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit("the launcher died before the rank started")


def asked_to_stop() -> bool:
    """Whether the launcher has closed the pipe that is a rank's stdin."""
    return bool(select.select([_STDIN], [], [], 0)[0])
