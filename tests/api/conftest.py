"""Two real services for all API tests: an open one with a job that ran, and one with keys."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from jobs.database import open_database
from jobs.intake import take_in
from jobs.keys import KeyRepository
from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.scopes import SCOPES
from jobs.storage import Storage
from jobs.uploads import NewUpload, UploadRepository
from temperd.schema import upgrade
from tests.core.workdirs import small_data
from tests.jobs.report import REPORT
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


class Keyed(NamedTuple):
    """What the service with keys has from the start, put there as API and worker would: nobody has to train."""

    keys: KeyRepository
    folder: Path
    key: str
    done: str  # ids of jobs of "ours"
    paused: str
    upload: str


@pytest.fixture(scope="session")
def ours(tmp_path_factory, example):
    folder = tmp_path_factory.mktemp("keyed")
    url = f"sqlite:///{folder / 'temper.db'}"
    upgrade(url)
    engine = open_database(url)
    keys, leases, storage = KeyRepository(engine), LeaseRepository(engine), Storage((folder / "store").as_uri())
    _, key = keys.create("ours", "tests", SCOPES)
    keys.set_limits("ours", {"requests_per_minute": 1_000_000})
    tenant = keys.find(key).tenant_id
    jobs, uploads = JobRepository(engine, tenant), UploadRepository(engine, tenant, unfinished_seconds=3600)
    sent = NewUpload("checkpoint.pt", None, standalone=False)
    upload = take_in(sent, [(example / "checkpoint.pt").read_bytes()], uploads, storage)
    new = NewJob({"data": {"dataset": "mnist"}, "training": {}}, "cpu", "aft", None, {}, 3, upload.id, None)
    done = jobs.create(new).id
    claim = leases.claim("tests", 30, ["cpu"])
    leases.add_log(claim, "a line\n")
    report = {**REPORT, "output": {"format": "pt"}}
    stored = storage.put(f"jobs/{done}/1/checkpoint.pt", example / "checkpoint.pt")
    leases.succeed(claim, report, {"checkpoint.pt": stored}, {})
    paused = jobs.create(new).id
    claim = leases.claim("tests", 30, ["cpu"])
    leases.add_log(claim, "a line\n")
    jobs.request_pause(paused)
    leases.release(claim, charged=False)
    yield Keyed(keys, folder, key, done, paused, upload.id)
    engine.dispose()


@pytest.fixture(scope="session")
def keys(ours):
    """They can be made and revoked while the service runs."""
    return ours.keys


@pytest.fixture(scope="session")
def keyed(ours):
    """Its client has a key of the tenant "ours" that may do everything."""
    with Service(ours.folder, key=ours.key, wrong_keys_per_minute=10**9) as service:
        yield service


@pytest.fixture
def stranger(keyed):
    """A client of the service with keys that has none."""
    with httpx.Client(base_url=keyed.client.base_url, timeout=60) as client:
        yield client


@pytest.fixture
def with_key(stranger):
    """The same client, with a header for a key."""

    def with_key(token):
        stranger.headers["Authorization"] = f"Bearer {token}"
        return stranger

    return with_key
