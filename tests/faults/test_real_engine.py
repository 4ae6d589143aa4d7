"""The real engine under a Celery worker: SIGTERM in every phase, and a job on several devices."""

from __future__ import annotations

import os
import random
import signal
import time

import httpx
import pytest

from stack.servers import Postgres, Redis
from stack.team import Team
from tests.core.workdirs import small_data
from tests.faults.floor import alive, command_of, descendants, until
from tests.team.test_team import submit, wait

pytestmark = pytest.mark.long
PHASES = ["validating", "baseline", "training", "evaluating"]
EXIT_SECONDS = 30
SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 3},
    "threat": {"eps": 0.1},
    "training": {"epochs": 5, "batch_size": 50, "held_out": 50},
    "evaluation": {"samples": 20, "suite": "standard", "diagnose": False},
}


@pytest.fixture
def team(tmp_path):
    with Postgres() as postgres, Redis() as redis:
        urls = {"database_url": postgres.url, "broker_url": redis.url, "store_url": (tmp_path / "store").as_uri()}
        with Team(tmp_path, **urls, lease_seconds=5, requests_per_minute=1_000_000) as team:
            yield team


@pytest.fixture
def client(team):
    with httpx.Client(base_url=team.address, headers=team.headers, timeout=60) as client:
        yield client


@pytest.fixture
def data(tmp_path, arrays):
    return small_data(tmp_path / "data.npz", arrays, train=1000, test=200)


def told(client, job):
    """What the report says of the two checkpoints."""
    report = client.get(f"/jobs/{job}/report").json()
    sides = [{key: value for key, value in report[side].items() if key != "seconds"} for side in ("before", "after")]
    return report["output"]["sha256"], sides[0]["robust"], sides[1]["robust"], sides[1]["clean"]


def test_sigterm_in_every_phase(team, client, example, data):
    """The worker ends in time, nothing is charged, and the report is that of an undisturbed job."""
    worker = team.start_worker()
    undisturbed = submit(client, example, data, SPEC).json()["id"]
    assert wait(client, undisturbed)["state"] == "succeeded"
    job = submit(client, example, data, SPEC).json()["id"]
    chance = random.Random(0)
    for attempt, phase in enumerate(PHASES, start=1):
        until(lambda phase=phase: client.get(f"/jobs/{job}").json()["phase"] == phase, 120, what=phase)
        time.sleep(chance.uniform(0, 0.5))
        begun = time.monotonic()
        assert worker.kill(signal.SIGTERM) == 0
        assert time.monotonic() - begun < EXIT_SECONDS
        given_back = client.get(f"/jobs/{job}").json()
        assert (given_back["state"], given_back["attempt"]) == ("queued", attempt)
        worker = team.start_worker()
        until(lambda: client.get(f"/jobs/{job}").json()["state"] == "running", what="the next attempt")
    assert wait(client, job)["state"] == "succeeded"
    assert told(client, job) == told(client, undisturbed)
    assert [event["type"] for event in client.get(f"/jobs/{job}/events").json()["items"]].count("lost") == 0


def test_a_job_on_two_devices_survives_the_death_of_one(team, client, example, data):
    """Both processes end, the next attempt goes on from the last epoch, and cancel leaves none alive."""
    worker = team.start_worker()
    spec = {**SPEC, "devices": 2}
    undisturbed = submit(client, example, data, spec).json()["id"]
    assert wait(client, undisturbed)["state"] == "succeeded"
    job = submit(client, example, data, spec).json()["id"]
    until(lambda: client.get(f"/jobs/{job}").json()["progress"]["epoch"] >= 2, 120, what="epoch 2")
    ranks = ranks_of(worker)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    until(lambda: not any(map(alive, ranks)), 15, what="the death of the others")
    assert wait(client, job)["attempt"] == 2
    assert told(client, job) == told(client, undisturbed)
    cancelled = submit(client, example, data, spec).json()["id"]
    until(lambda: client.get(f"/jobs/{cancelled}").json()["progress"]["epoch"] >= 1, 120, what="epoch 1")
    ranks = ranks_of(worker)
    client.post(f"/jobs/{cancelled}/cancel")
    until(lambda: client.get(f"/jobs/{cancelled}").json()["state"] == "cancelled", 10, what="the cancel")
    assert len(ranks) == 2
    assert not any(map(alive, ranks)), "cancelled is true only when its processes are dead"


def ranks_of(worker):
    """Ids of the processes that train."""
    return [pid for pid in descendants(worker.pid) if "-m core rank " in command_of(pid)]
