"""A real SQLite database, made by the migrations."""

from __future__ import annotations

import pytest

from jobs.database import open_database
from jobs.repository import JobRepository, NewJob, NewUpload
from jobs.storage import Stored
from temperd.schema import upgrade


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'temper.db'}"
    upgrade(url)
    return url


@pytest.fixture
def engine(url):
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(engine):
    return JobRepository(engine)


@pytest.fixture
def submit(repository):
    uploads = [
        NewUpload("up_c", "c.pt", Stored("uploads/up_c", "0" * 64, 10)),
        NewUpload("up_d", "d.npz", Stored("uploads/up_d", "1" * 64, 20)),
    ]
    sent = []

    def submit(**changes):
        new = {
            "spec": {"data": {}}, "defense": "aft", "name": None, "tags": {}, "epochs": 3,
            "checkpoint_upload": "up_c", "data_upload": "up_d",
        }  # fmt: skip
        job = repository.create(NewJob(**{**new, **changes}), [] if sent else uploads)
        sent.append(job.id)
        return job

    return submit
