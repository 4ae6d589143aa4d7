"""A lease lives as long as its keeper, however long a copy takes, and its loss is noticed."""

from __future__ import annotations

import threading
import time

import pytest

from jobs.database import open_database
from jobs.repository import JobRepository, NewJob, NewUpload
from jobs.storage import Stored
from temperd.schema import upgrade
from worker.lease import LeaseKeeper


@pytest.fixture
def repository(tmp_path):
    url = f"sqlite:///{tmp_path / 'temper.db'}"
    upgrade(url)
    engine = open_database(url)
    repository = JobRepository(engine)
    new = NewJob(
        spec={"data": {}}, defense="aft", name=None, tags={}, epochs=1, checkpoint_upload="up", data_upload="up"
    )  # fmt: skip
    repository.create(new, [NewUpload("up", "c.pt", Stored("uploads/up", "0" * 64, 1))])
    yield repository
    engine.dispose()


def test_a_long_copy_does_not_lose_the_job(repository):
    claim = repository.claim("me", 0.6)
    with LeaseKeeper(repository, claim, 0.6, on_loss=lambda: None) as keeper:
        time.sleep(2)
        assert repository.claim("other", 30) is None
    assert not keeper.lost
    time.sleep(0.7)
    assert repository.claim("other", 30).attempt == 2, "the keeper stopped with its block"


def test_a_lost_lease_is_noticed_and_the_child_killed(repository):
    claim = repository.claim("me", 0.05)
    time.sleep(0.1)
    assert repository.claim("other", 30).attempt == 2
    killed = threading.Event()
    with LeaseKeeper(repository, claim, 0.3, on_loss=killed.set) as keeper:
        assert killed.wait(5)
    assert keeper.lost
