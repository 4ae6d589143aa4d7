"""A worker's own folder for the work folders of its attempts; what a killed worker left behind is swept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OLD_SECONDS = 24 * 3600.0


@contextmanager
def workplace(root: Path, name: str) -> Iterator[Path]:
    """``root/name``, locked by this process for as long as it lives: a folder that nobody locks has no owner."""
    root.mkdir(parents=True, exist_ok=True)
    sweep_left(root)
    hidden, folder = root / f".{name}", root / name
    hidden.mkdir()
    lock = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(folder)  # locked before anybody can sweep it
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep_left(root: Path) -> None:
    """Remove what killed processes left below a work folder."""
    for hidden in root.glob(".*-*"):  # of the API, which holds no locks, and of workers that died while they began
        with contextlib.suppress(OSError):
            if time.time() - hidden.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(hidden, ignore_errors=True)
    for folder in root.glob("[!.]*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:
            continue  # being removed in this moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
