"""One real service for all API tests, and one finished job."""

from __future__ import annotations

import pytest

from tests.core.workdirs import small_data
from tests.service import Service

SPEC = {
    "name": "small",
    "tags": {"team": "vision"},
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 2},
    "threat": {"eps": 0.1},
    "training": {"epochs": 2, "batch_size": 50, "held_out": 30},
    "evaluation": {"samples": 60, "diagnose": False},
}


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="session")
def data(tmp_path_factory, arrays):
    return small_data(tmp_path_factory.mktemp("data") / "data.npz", arrays)


@pytest.fixture(scope="session")
def done(service, example, data):
    """The id of a job that succeeded."""
    job = service.submit(example / "checkpoint.pt", data, SPEC)
    ended = service.wait(job)
    assert ended["state"] == "succeeded", ended
    return job
