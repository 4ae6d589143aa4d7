"""What the service logs of itself: JSON for a team, and no secret in it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobs.settings import Settings

CODE = """
import logging, os
from jobs.settings import Settings
from structlog.contextvars import bound_contextvars
from temperd.logs import configure
configure(as_json={as_json})
def fail(settings):
    database_url = settings.database_url
    raise KeyError("gone")
with bound_contextvars(job="job_1", attempt=2):
    try:
        fail(Settings())
    except KeyError:
        logging.getLogger("worker").exception("a fault of %s", Settings())
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_hold_no_passwords(as_json):
    secrets = {
        "TEMPER_DATABASE_URL": "postgresql://u:HUNTER2@h/d",
        "TEMPER_BROKER_URL": "redis://:REDISPW@h/0",
        "TEMPER_STORE_URL": "s3://b?secret=STOREPW",
        "TEMPER_WEBHOOK_SECRET": "whsec_HOOKPW",
        "TEMPER_SIGNING_KEY": "tmpsk_SIGNPW",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(as_json=as_json)], env=secrets, capture_output=True, text=True, check=True
    )
    assert "KeyError" in done.stderr
    assert "fail" in done.stderr
    for word in ("HUNTER2", "REDISPW", "STOREPW", "HOOKPW", "SIGNPW"):
        assert word not in done.stderr
    if as_json:
        line = json.loads(done.stderr)
        assert (line["job"], line["attempt"], line["level"], line["logger"]) == ("job_1", 2, "error", "worker")


@pytest.mark.parametrize(
    "wrong", [{"queue": "gpus"}, {"queues": "cpu,gpus"}, {"drain_seconds": 500}, {"lease_seconds": 0}]
)
def test_settings_that_would_leave_jobs_waiting_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)
