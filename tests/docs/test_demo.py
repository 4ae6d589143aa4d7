"""make demo, against a service that is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT
from tests.service import Service


@pytest.mark.long
def test_the_demo_hardens_and_proves_it(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with Service(tmp_path / "service") as service:
        environment = {**os.environ, "TEMPER_URL": str(service.client.base_url)}
        command = [sys.executable, tmp_path / "examples" / "demo.py"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (job,) = service.client.get("/jobs").json()["items"]
        report = service.client.get(f"/jobs/{job['id']}/report").json()
    assert report["after"]["robust"]["accuracy"] > 0.4 > 0.01 > report["before"]["robust"]["accuracy"]
