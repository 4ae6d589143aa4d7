"""Logs, pause and resume, health and metrics, as operators and scripts use them."""

from __future__ import annotations

import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import SPEC

LONG = {**SPEC, "training": {**SPEC["training"], "epochs": 60}}


def test_the_log_is_served_as_it_was_written(service, done):
    log = service.client.get(f"/jobs/{done}/logs")
    assert log.headers["content-type"].startswith("text/plain")
    lines = log.text.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d validating", lines[0])
    assert sum("epoch 2:" in line for line in lines) == 1
    assert service.client.get(f"/jobs/{done}/logs", params={"tail": 1}).text.splitlines() == lines[-1:]
    assert service.client.get(f"/jobs/{done}/logs", params={"tail": 0}).text == ""
    with service.client.stream("GET", f"/jobs/{done}/logs", params={"follow": True}) as stream:
        assert "".join(stream.iter_text()) == log.text, "it ends with the job"
    assert service.client.get("/jobs/job_x/logs").status_code == 404
    assert "Traceback" not in log.text


def test_pause_follow_resume_cancel(service, example, data):
    job = service.submit(example / "checkpoint.pt", data, LONG)
    assert service.client.post(f"/jobs/{job}/resume").status_code in (200, 409)
    service.until(job, "epoch", epoch=1)
    asked = service.client.post(f"/jobs/{job}/pause")
    assert asked.status_code == 202
    assert asked.json()["pause_requested"]
    service.until(job, "state", state="paused")
    paused = service.job(job)
    assert (paused["state"], paused["failure"]) == ("paused", None)
    assert service.client.post(f"/jobs/{job}/pause").status_code == 200
    assert service.client.get(f"/jobs/{job}/report").status_code == 202
    reached = paused["progress"]["epoch"]
    assert service.client.post(f"/jobs/{job}/resume").json()["state"] in ("queued", "running")
    service.until(job, "state", state="running", attempt=2)
    service.until(job, "epoch", epoch=reached + 1)
    with service.client.stream("GET", f"/jobs/{job}/logs", params={"follow": True}) as stream:
        for text in stream.iter_text():
            if f"epoch {reached + 2}:" in text:
                break
    started = time.monotonic()
    assert service.client.post(f"/jobs/{job}/cancel").status_code == 202
    service.until(job, "state", state="cancelled")
    assert time.monotonic() - started < 10
    assert service.client.post(f"/jobs/{job}/cancel").status_code == 200
    refused = service.client.post(f"/jobs/{job}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert service.client.post(f"/jobs/{job}/pause").status_code == 409
    events = service.client.get(f"/jobs/{job}/events", params={"limit": 1000}).json()["items"]
    epochs = [event["data"]["epoch"] for event in events if event["type"] == "epoch"]
    assert epochs == [*range(1, len(epochs) + 1)]


def test_ready_names_what_it_looked_at(service):
    answer = service.client.get("/readyz")
    assert answer.status_code == 200
    checks = answer.json()["checks"]
    assert checks.pop("sandbox").startswith("ok (landlock ABI ")
    assert (answer.json()["ready"], checks) == (True, {"database": "ok", "storage": "ok", "runner": "ok"})


def test_metrics_are_what_prometheus_reads(service, done):
    service.client.get("/jobs/job_of_nobody")
    text = service.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    succeeded = [s for s in families["temper_jobs"].samples if s.labels == {"queue": "cpu", "state": "succeeded"}]
    assert succeeded[0].value >= 1
    waits = {sample.name: sample.value for sample in families["temper_queue_wait_seconds"].samples}
    assert waits["temper_queue_wait_seconds_count"] >= 1
    assert waits["temper_queue_wait_seconds_sum"] >= 0
    labels = [sample.labels for sample in families["temper_http_requests"].samples]
    assert {"method": "GET", "route": "/jobs/{job_id}", "status": "404"} in labels
    assert "job_of_nobody" not in text, "ids would make a series each"


@pytest.mark.parametrize("path", ["/jobs?defense=%00", "/jobs/%00", "/jobs/a%00b/report", "/jobs?cursor=%00"])
def test_nul_is_nothing_that_can_be_asked_for(service, path):
    answer = service.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_nul_is_nothing_that_can_be_submitted(service, example, data):
    for spec in ({**SPEC, "name": "a\0b"}, {**SPEC, "tags": {"a\0": "b"}}):
        answer = service.post(example / "checkpoint.pt", data, spec)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    answer = service.post(example / "checkpoint.pt", data, SPEC, architecture="fmnist-cnn\0")
    assert answer.status_code == 422


def test_unknown_methods_make_no_series(service):
    for method in ("BREW", "WHEN"):
        service.client.request(method, "/healthz")
    metrics = service.client.get("/metrics").text
    assert 'method="other"' in metrics
    assert "BREW" not in metrics
