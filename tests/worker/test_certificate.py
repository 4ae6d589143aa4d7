"""What the supervisor signs, and what it refuses to; and that no child gets at the key."""

from __future__ import annotations

import hashlib
import json

import pytest

from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.settings import Settings
from jobs.signing import SigningKeyRepository, signer_of
from jobs.storage import Storage
from jobs.tables import DEFAULT_TENANT
from temper import certificate as client
from tests.client.test_certificate import SIDE, report
from tests.worker.test_sandbox import run
from worker.child import environment
from worker.files import AttemptFiles, StrayFileError

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
SPEC = {"seed": 3, "data": {"dataset": "mine"}, "training": {}}


class Floor:
    """A claimed job on a dataset of the operator's, its engine at its end."""

    def __init__(self, folder, engine):
        (folder / "sets").mkdir()
        (folder / "sets" / "mine.npz").write_bytes(b"images")
        self.settings = Settings(data_dir=folder / "data", datasets=(folder / "sets",))
        self.storage, self.leases = Storage(self.settings.store), LeaseRepository(engine)
        self.signer, self.keys = signer_of(self.settings), SigningKeyRepository(engine)
        JobRepository(engine, DEFAULT_TENANT).create(NewJob(SPEC, "cpu", "aft", None, {}, 1, None, None))
        claim = self.leases.claim("me", 60, ["cpu"])
        self.folder = self.settings.work_dir / f"{claim.job_id}-{claim.attempt}"
        self.folder.mkdir(parents=True)
        self.files = AttemptFiles(claim, self.folder, self.leases, self.storage, self.settings, heed=lambda: None)
        self.job = self.files.prepare()
        (self.folder / "output" / "checkpoint.pt").write_bytes(b"weights")
        self.truth = report({"checkpoint.pt": hashlib.sha256(b"weights").hexdigest()})

    def sign(self, report, names=("checkpoint.pt",)):
        outputs = self.files.store_outputs(names)
        return self.files.store_certificate(report, SPEC, outputs, self.signer, self.keys)["certificate.json"]


@pytest.fixture
def floor(tmp_path, engine):
    return Floor(tmp_path, engine)


def test_it_signs_what_it_hashed_itself(floor, tmp_path):
    stored = floor.sign(floor.truth)
    path = tmp_path / "certificate.json"
    floor.storage.fetch([stored.key], stored.sha256, path)
    (row,) = floor.keys.every()
    statement, _ = client.read(path.read_bytes(), {row.id: row.public_key})
    said = statement["predicate"]
    assert said["outputs"] == {"checkpoint.pt": hashlib.sha256(b"weights").hexdigest()}
    # also of a named dataset, which ingest is told and does not hash itself
    sha256 = hashlib.sha256(b"images").hexdigest()
    assert said["inputs"] == {"checkpoint": None, "data": {"filename": "mine.npz", "sha256": sha256, "size": 6}}
    request = json.loads((floor.folder / "ingest.json").read_text())
    assert request["data"]["sha256"] == sha256


def test_a_child_cannot_bring_its_own_certificate(floor):
    (floor.folder / "output" / "certificate.json").write_text("{}")
    with pytest.raises(StrayFileError, match="only its supervisor"):
        floor.sign(floor.truth, ["checkpoint.pt", "certificate.json"])
    assert floor.keys.every() == []


@pytest.mark.parametrize(
    "change",
    [
        {"output": {"format": "pt", "files": {"checkpoint.pt": "0" * 64}}},
        {"output": {"format": "pt", "files": {}, "x": 1}, "threat": {"eps": float("nan")}},
        {"before": None},
        {"verdict": {}},
        {"after": {**SIDE, "attacks": [{}]}},
        {"images": "\ud800"},
    ],
)
def test_a_report_that_cannot_be_is_not_signed(floor, change):
    with pytest.raises(StrayFileError):
        floor.sign({**floor.truth, **change})
    assert floor.keys.every() == []


@pytest.mark.parametrize("kind", ["ingest", "engine", "ranks"])
def test_no_child_can_read_the_key(floor, kind, monkeypatch):
    monkeypatch.setenv("TEMPER_SIGNING_KEY", floor.settings.signing_key_file.read_text().strip())
    assert "TEMPER_SIGNING_KEY" not in environment(floor.folder)
    floor.job.spec = {**SPEC, "devices": 2 if kind == "ranks" else 1}
    rules = floor.files.ingest_rules(floor.job) if kind == "ingest" else floor.files.engine_rules(floor.job)
    read = ["-c", "import sys; print(open(sys.argv[1]).read())", str(floor.settings.signing_key_file)]
    home = floor.folder / ("home-ingest" if kind == "ingest" else "home-core")
    assert "tmpsk_" in run(None, *read, home=home).stdout
    refused = run(rules, *read, home=home)
    assert "tmpsk_" not in refused.stdout
    assert "PermissionError" in refused.stderr
