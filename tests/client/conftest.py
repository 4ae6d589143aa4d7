"""One real service with one job that ran, both asked for by the client; and connections to it that break."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from temper import Client
from temper.cli import app
from tests.client.cutting import Cutting
from tests.core.workdirs import small_data
from tests.service import Service

ROOT = Path(__file__).parents[2]
SPEC = {
    "name": "small",
    "training": {"batch_size": 50, "held_out": 30},
    "evaluation": {"samples": 60, "diagnose": False},
}
HARDEN = {"architecture": "fmnist-cnn", "defense": "fast-at", "eps": "0.1", "epochs": 1}


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="session")
def url(service):
    return str(service.client.base_url)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Nothing of whoever runs the tests."""
    monkeypatch.delenv("TEMPER_URL", raising=False)
    monkeypatch.delenv("TEMPER_API_KEY", raising=False)


@pytest.fixture(scope="session")
def data(tmp_path_factory, arrays):
    return small_data(tmp_path_factory.mktemp("data") / "data.npz", arrays)


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


@dataclass(frozen=True)
class Ran:
    """The README's example: the job that it made, what it printed, its folder, and what ``temper watch`` showed."""

    job: str
    printed: str
    folder: Path
    watched: Any


@pytest.fixture(scope="session")
def ran(url, example, arrays, tmp_path_factory):
    """As printed, with fewer images; the command watches the job meanwhile."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "from temper import" in block]
    folder = tmp_path_factory.mktemp("readme")
    files = folder / "examples" / "fashion_mnist"
    files.mkdir(parents=True)
    (files / "checkpoint.pt").write_bytes((example / "checkpoint.pt").read_bytes())
    small_data(files / "data.npz", arrays, train=80, test=20)
    environment = {**os.environ, "TEMPER_URL": url}
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process,
        Client(url) as client,
    ):
        while not (jobs := list(client.jobs())):
            assert process.poll() is None
        watched = CliRunner().invoke(app, ["watch", jobs[0].id], env={"TEMPER_URL": url})
        printed = process.stdout.read()
    assert process.returncode == 0
    return Ran(jobs[0].id, printed, folder, watched)


@pytest.fixture(scope="session")
def done(ran):
    """The id of that job, which succeeded."""
    return ran.job


@pytest.fixture
def cutting(url):
    with Cutting(httpx.URL(url).port) as proxy:
        yield proxy


@pytest.fixture
def through(cutting):
    """A client whose connections break."""
    with Client(cutting.url) as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """The same pauses, a hundredth as long."""
    monkeypatch.setattr("temper.http._FIRST_PAUSE", 0.005)
    monkeypatch.setattr("temper.http._LONGEST_PAUSE", 0.2)
