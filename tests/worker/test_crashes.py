"""kill -9 of the child and of the whole service: the job goes on from its last state, to the same bytes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.core.workdirs import small_data
from tests.service import Service, alive, children

SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 2},
    "threat": {"eps": 0.1},
    "training": {"epochs": 4, "batch_size": 64, "held_out": 50},
    "evaluation": {"samples": 50, "diagnose": False},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory, arrays, example):
    data = small_data(tmp_path_factory.mktemp("data") / "data.npz", arrays, train=1000)
    return example / "checkpoint.pt", data


@pytest.fixture(scope="module")
def expected(files, tmp_path_factory):
    """The digest of an uninterrupted run."""
    with Service(tmp_path_factory.mktemp("calm")) as service:
        job = service.submit(*files, SPEC)
        assert service.wait(job)["attempt"] == 1
        return service.client.get(f"/jobs/{job}/report").json()["output"]["sha256"]


def digest(service, job):
    assert service.wait(job)["state"] == "succeeded"
    return service.client.get(f"/jobs/{job}/report").json()["output"]["sha256"]


def epochs(service, job):
    items = service.client.get(f"/jobs/{job}/events", params={"limit": 1000}).json()["items"]
    return [item["data"]["epoch"] for item in items if item["type"] == "epoch"]


def test_kill_9_of_the_child(files, expected, tmp_path):
    with Service(tmp_path / "data", lease_seconds=3) as service:
        job = service.submit(*files, SPEC)
        service.until(job, "epoch", epoch=2)
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        assert digest(service, job) == expected
        assert service.job(job)["attempt"] == 2
        assert epochs(service, job) == [1, 2, 3, 4], "finished epochs are not run again"
        lost = [e for e in service.client.get(f"/jobs/{job}/events").json()["items"] if e["type"] == "lost"]
        assert "killed by signal 9" in lost[0]["data"]["detail"]


@pytest.mark.long
def test_kill_9_within_an_attack_of_the_last_evaluation(files, tmp_path):
    """Training is not repeated, and the report is that of an uninterrupted run."""
    evaluation = {"suite": "standard", "samples": 60, "batch_size": 20, "diagnose": False}
    spec = {**SPEC, "training": {**SPEC["training"], "epochs": 1}, "evaluation": evaluation}
    with Service(tmp_path / "data", lease_seconds=3) as service:
        calm = service.submit(*files, spec)
        service.wait(calm)
        job = service.submit(*files, spec)
        service.until(job, "phase", phase="evaluating")
        deadline = time.monotonic() + 60
        while (service.job(job)["progress"]["fraction"] or 0) < 0.9 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        assert service.wait(job)["state"] == "succeeded"
        assert service.job(job)["attempt"] == 2
        assert epochs(service, job) == [1]
        first, second = (service.client.get(f"/jobs/{each}/report").json() for each in (calm, job))
        assert first["before"] == second["before"]
        assert first["after"] == second["after"]
        assert first["output"]["sha256"] == second["output"]["sha256"]


@pytest.mark.long
def test_kill_9_within_a_search_for_a_defense(files, tmp_path):
    """What was tried is not tried again, and the same comes out."""
    goal = {"robust": 0.9, "max_clean_drop": 0.3}
    auto = {"name": "auto", "goal": goal, "candidates": ["temper", "rst", "fast-at"], "eta": 3, "fb_per_image": 30}
    spec = {**{key: SPEC[key] for key in ("model", "threat", "evaluation")}, "defense": {**auto, "held_out": 50}}
    with Service(tmp_path / "data", lease_seconds=3) as service:
        calm = service.submit(*files, spec)
        service.wait(calm, 300)
        job = service.submit(*files, spec)
        service.until(job, "candidate", name="rst")
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        service.until(job, "epoch", epoch=2)
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        assert service.wait(job, 300)["state"] == "succeeded"
        assert service.job(job)["attempt"] == 3
        items = service.client.get(f"/jobs/{job}/events", params={"limit": 1000}).json()["items"]
        assert [e["data"]["name"] for e in items if e["type"] == "candidate"] == ["temper", "rst", "fast-at"]
        first, second = (service.client.get(f"/jobs/{each}/report").json() for each in (calm, job))
        assert first["search"]["pareto"] == second["search"]["pareto"]
        assert first["output"]["sha256"] == second["output"]["sha256"]
        assert first["after"] == second["after"]


def test_kill_9_of_the_service(files, expected, tmp_path):
    service = Service(tmp_path / "data", lease_seconds=3).start()
    job = service.submit(*files, SPEC)
    service.until(job, "epoch", epoch=1)
    child = children(service.process.pid)[0]
    service.kill(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child), "no child outlives its service"
    with Service(tmp_path / "data", lease_seconds=3) as again:
        assert again.job(job)["state"] in ("queued", "running"), "it is not lost, and its lease may just have run out"
        assert digest(again, job) == expected
        assert again.job(job)["attempt"] == 2
        assert epochs(again, job) == [1, 2, 3, 4]


@pytest.mark.long
def test_a_stopped_service_saves_its_state_and_is_not_charged(files, expected, tmp_path):
    service = Service(tmp_path / "data").start()
    job = service.submit(*files, SPEC)
    service.until(job, "epoch", epoch=1)
    assert service.kill(signal.SIGTERM) == 0
    with Service(tmp_path / "data") as again:
        assert digest(again, job) == expected
        states = [
            item["data"] for item in again.client.get(f"/jobs/{job}/events").json()["items"] if item["type"] == "state"
        ]
        assert {"state": "queued"} in states[1:]


@pytest.mark.long
def test_three_deaths_without_progress_are_poison_and_the_next_job_runs(files, tmp_path):
    with Service(tmp_path / "data", lease_seconds=3) as service:
        job = service.submit(*files, SPEC)
        following = service.submit(*files, {**SPEC, "defense": "none", "training": None})
        for attempt in (1, 2, 3):
            service.until(job, "state", state="running", attempt=attempt)
            deadline = time.monotonic() + 20
            while not (found := children(service.process.pid)) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(found[0], signal.SIGKILL)
        ended = service.wait(job)
        assert (ended["state"], ended["failure"]["code"], ended["attempt"]) == ("failed", "poison", 3)
        assert service.wait(following)["state"] == "succeeded"


def test_a_job_that_has_run_as_long_as_it_may_fails_and_its_process_is_dead(files, tmp_path):
    with Service(tmp_path / "data") as service:
        job = service.submit(*files, {**SPEC, "training": {**SPEC["training"], "epochs": 400}, "max_minutes": 0.1})
        ended = service.wait(job)
        assert (ended["state"], ended["failure"]["code"], ended["failure"]["blame"]) == ("failed", "time_limit", "user")
        assert children(service.process.pid) == []


@pytest.mark.long
def test_a_second_service_in_the_same_folder_is_refused(tmp_path):
    import subprocess

    from tests.service import TEMPERD

    with Service(tmp_path / "data"):
        command = [TEMPERD, "serve", "--port", "0", "--data-dir", tmp_path / "data"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "another temperd serves" in second.stderr


@pytest.mark.long
def test_ctrl_c_twice_leaves_nothing_behind(files, expected, tmp_path):
    """With a client on the stream uvicorn waits; a second Ctrl-C skips its shutdown, but not the runner's."""
    import threading

    service = Service(tmp_path / "data").start()
    job = service.submit(*files, SPEC)
    service.until(job, "epoch", epoch=1)
    child = children(service.process.pid)[0]
    stream = threading.Thread(target=lambda: suppress_all(lambda: list(service.events(job))), daemon=True)
    stream.start()
    time.sleep(0.5)
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    service.kill(signal.SIGINT)
    stream.join(10)
    assert not alive(child)
    with Service(tmp_path / "data") as again:
        assert digest(again, job) == expected


def suppress_all(function):
    import contextlib

    with contextlib.suppress(Exception):
        function()
