"""kill -9 at random moments of a real job: it ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from tests.core.workdirs import small_data
from tests.service import Service, children

MOMENTS = 20
SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "free-at", "replays": 2},
    "threat": {"eps": 0.1},
    "training": {"epochs": 6, "batch_size": 64, "held_out": 50, "ema": 0.9},
    "evaluation": {"samples": 50, "diagnose": False},
}


@pytest.mark.long
def test_killed_at_random_moments(tmp_path, arrays, example):
    files = example / "checkpoint.pt", small_data(tmp_path / "data.npz", arrays, train=800)
    chance = random.Random(0)
    with Service(tmp_path / "data", lease_seconds=3) as service:

        def digest(job):
            assert service.wait(job)["state"] == "succeeded"
            return service.client.get(f"/jobs/{job}/report").json()["output"]["sha256"]

        def until_some_moment(job):
            there = chance.uniform(0, 0.95)
            while (service.job(job)["progress"]["fraction"] or 0) < there:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.5))

        expected = digest(service.submit(*files, SPEC))
        kills = 0
        while kills < MOMENTS:
            job = service.submit(*files, SPEC)
            for _ in range(2):  # never three in a row without progress
                until_some_moment(job)
                for child in children(service.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                        kills += 1
            assert digest(job) == expected, f"after {kills} kills"
