"""Requests made from the OpenAPI document, valid and not, alone and in chains: no 500, and answers as described."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs.database import open_database
from jobs.keys import KeyRepository
from jobs.scopes import SCOPES
from temperd.schema import upgrade
from tests.api.test_repeat import BODY
from tests.service import Service

AS_DESCRIBED = [status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
LIMITS = {"wrong_keys_per_minute": 10**9, "requests_per_minute": 10**9, "max_queued_jobs": 10**9}  # out of the way


@pytest.fixture
def fuzzed(tmp_path):
    """With a key, and two jobs: one that failed, as its dataset is not there, and one that waits for ever."""
    (tmp_path / "data").mkdir()
    url = f"sqlite:///{tmp_path / 'data' / 'temper.db'}"
    upgrade(url)
    engine = open_database(url)
    _, key = KeyRepository(engine).create("fuzzed", "tests", SCOPES)
    engine.dispose()
    with Service(tmp_path / "data", key=key, **LIMITS) as service:
        yield service


# chains and examples go on until the time is over; the checks of each call by itself take what they take before
@pytest.mark.parametrize(
    ("seconds", "examples", "seed"),
    [(20, 2, ["--seed", "1"]), pytest.param(300, 100, [], marks=pytest.mark.long)],
    ids=["short", "long"],
)
def test_the_whole_api(fuzzed, tmp_path, seconds, examples, seed):
    service = fuzzed
    job = service.client.post("/jobs", json=BODY).raise_for_status().json()["id"]
    assert service.wait(job)["failure"]["code"] == "dataset_missing"
    command = [
        SCHEMATHESIS, "run", str(service.client.base_url.join("/openapi.json")),
        "--header", f"Authorization: {service.client.headers['Authorization']}",
        # what a spec may hold is more than a JSON Schema says
        "--exclude-checks", "positive_data_acceptance",
        "--max-examples", str(examples), "--max-time", str(seconds), "--request-timeout", "70", "--no-color", *seed,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TEMPER_TEST_JOBS": job,
        "TEMPER_TEST_SPEC": json.dumps(BODY),
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
    assert service.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["", "/report", "/events", "/artifacts", "/logs", "/checkpoint"])
def test_a_job_that_succeeded_is_told_as_described(service, done, path):
    schema = schemathesis.openapi.from_url(str(service.client.base_url.join("/openapi.json")))
    case = schema[f"/jobs/{{job_id}}{path}"]["GET"].Case(path_parameters={"job_id": done})
    answer = case.call()
    assert answer.status_code == 200
    case.validate_response(answer, checks=AS_DESCRIBED)
