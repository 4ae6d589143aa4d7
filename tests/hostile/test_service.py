"""The whole corpus against a running service: every job fails with its code, and the service stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.corpus import hostile
from tests.hostile.entry import CANARY
from tests.service import Service

ENTRIES = hostile()
_MEGABYTES = 200


@pytest.fixture
def service(tmp_path):
    limits = {"max_queued_jobs": 10**4, "requests_per_minute": 10**6}
    with Service(tmp_path / "data", **limits) as service:
        yield service


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Data beside a checkpoint, which is looked at first."""
    path = tmp_path_factory.mktemp("images") / "data.npz"
    x, y = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


def resident(pid: int) -> float:
    """Megabytes."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def submit(service, entry, path, images):
    """The job's id. Data is looked at without a checkpoint, which training from scratch does not need."""
    model = {"architecture": "small-cnn", "num_classes": 2}
    model["weights"] = "uploaded" if entry.kind == "checkpoint" else "random"
    spec = {"model": model, "defense": "pgd-at", "threat": {"eps": 0.1}, "training": {"epochs": 1}}
    spec["data"] = dict(entry.options)
    files = {entry.kind: (entry.filename, path.read_bytes())}
    if entry.kind == "checkpoint":
        files["data"] = (images.name, images.read_bytes())
    answer = service.client.post("/jobs", data={"spec": json.dumps(spec)}, files=files)
    assert answer.status_code == 202, (entry.name, answer.text)
    return answer.json()["id"]


@pytest.mark.long
def test_no_file_harms_the_service(service, images, tmp_path):
    jobs = {}
    for entry in ENTRIES:
        path = tmp_path / "file"
        entry.write(path)
        jobs[entry.name] = submit(service, entry, path, images)
    sizes, codes = [], {}
    for name, job in jobs.items():
        codes[name] = (service.wait(job)["failure"] or {}).get("code")
        sizes.append(resident(service.process.pid))
    assert codes == {entry.name: entry.code for entry in ENTRIES}
    assert max(sizes) - sizes[0] < _MEGABYTES
    assert service.client.get("/readyz").status_code == 200
    assert not [*tmp_path.rglob(CANARY)]
