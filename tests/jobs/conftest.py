"""The three repositories on a real database, SQLite and Postgres, made by the migrations."""

from __future__ import annotations

import pytest

from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.tables import DEFAULT_TENANT
from jobs.upkeep import Upkeep
from jobs.uploads import NewPart, NewUpload, UploadRepository


@pytest.fixture
def repository(engine):
    return JobRepository(engine, DEFAULT_TENANT, webhooks=True)


@pytest.fixture
def leases(engine):
    return LeaseRepository(engine, webhooks=True)


@pytest.fixture
def upkeep(engine):
    return Upkeep(engine, webhooks=True)


@pytest.fixture
def uploads(engine):
    return UploadRepository(engine, DEFAULT_TENANT, unfinished_seconds=3600)


@pytest.fixture
def bring(uploads):
    """An upload of one part, finished; its file is nowhere."""

    def bring(name, sha256, size, *, standalone=False, **more):
        upload = uploads.begin(NewUpload(name, size, standalone=standalone, **more))
        uploads.append(upload.id, [NewPart(0, size, f"uploads/{upload.id}/0", 0)], 0, sha256)
        return uploads.finished(upload.id)

    return bring


@pytest.fixture
def submit(repository, bring):
    brought = {}

    def submit(**changes):
        if not brought:
            brought["checkpoint_upload"] = bring("c.pt", "0" * 64, 10).id
            brought["data_upload"] = bring("d.npz", "1" * 64, 20).id
        new = {
            "spec": {"data": {}}, "queue": "cpu", "defense": "aft", "name": None, "tags": {}, "epochs": 3, **brought,
        }  # fmt: skip
        return repository.create(NewJob(**{**new, **changes}))

    return submit
