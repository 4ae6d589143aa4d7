"""The three repositories on a real database, SQLite and Postgres, made by the migrations."""

from __future__ import annotations

import pytest

from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob, NewUpload
from jobs.storage import Stored
from jobs.upkeep import Upkeep


@pytest.fixture
def repository(engine):
    return JobRepository(engine, webhooks=True)


@pytest.fixture
def leases(engine):
    return LeaseRepository(engine, webhooks=True)


@pytest.fixture
def upkeep(engine):
    return Upkeep(engine, webhooks=True)


@pytest.fixture
def submit(repository):
    uploads = [
        NewUpload("up_c", "c.pt", Stored("uploads/up_c", "0" * 64, 10)),
        NewUpload("up_d", "d.npz", Stored("uploads/up_d", "1" * 64, 20)),
    ]
    sent = []

    def submit(**changes):
        new = {
            "spec": {"data": {}}, "queue": "cpu", "defense": "aft", "name": None, "tags": {}, "epochs": 3,
            "checkpoint_upload": "up_c", "data_upload": "up_d",
        }  # fmt: skip
        job = repository.create(NewJob(**{**new, **changes}), [] if sent else uploads)
        sent.append(job.id)
        return job

    return submit
