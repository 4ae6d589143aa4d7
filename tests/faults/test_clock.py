"""A worker's clock is two hours off: leases are the database's business, and nothing changes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

SHIFTED = Path(__file__).with_name("shifted_worker.py")


@pytest.mark.long
@pytest.mark.parametrize("hours", [-2, 2])
def test_two_hours_off(floor, hours):
    wrong = floor.worker(str(SHIFTED), str(hours * 3600))
    job = floor.submit(epochs=10, pause=0.25)
    floor.until_epoch(job, 2)
    right = floor.worker()
    floor.until_epoch(job, 5)
    assert floor.attempt(job) == 1, "neither took it from the other"
    os.kill(wrong.engine(), signal.SIGKILL)
    assert floor.succeeded(job, epochs=10).attempt == 2
    wrong.stop()
    assert floor.succeeded(floor.submit())
    assert right.process.poll() is None
