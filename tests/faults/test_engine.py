"""What goes wrong in the engine itself: no memory, numbers that are none."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.core.workdirs import make_workdir, small_data
from tests.service import Service

CONFINED = Path(__file__).with_name("confined_worker.py")
GROUPS = Path("/sys/fs/cgroup")
LIMIT = str(500 << 20)


@pytest.fixture
def group():
    """A control group with little memory, of whichever version this machine has."""
    paths = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    folder = (GROUPS / paths[""].strip("/")) / f"temper-{os.getpid()}"
    limit = "memory.max"
    if "memory" in paths:
        folder, limit = GROUPS / "memory" / paths["memory"].strip("/") / folder.name, "memory.limit_in_bytes"
    try:
        folder.mkdir()
        (folder / limit).write_text(LIMIT)
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    deadline = time.monotonic() + 10
    while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    folder.rmdir()


@pytest.mark.parametrize(("who", "devices"), [("eat", 1), ("eat below", 2)])
def test_an_engine_that_the_kernel_killed_for_memory_is_told_as_such(group, floor, who, devices):
    """Or one of its processes."""
    worker = floor.worker(str(CONFINED), str(group))
    failed = floor.wait(floor.submit(mode=who, devices=devices))
    assert (failed.state, failed.failure["code"], failed.attempt) == ("failed", "out_of_memory", 1)
    assert "batch_size" in failed.failure["hint"]
    assert floor.succeeded(floor.submit()), "the worker lives"
    assert worker.process.poll() is None


def test_uploads_that_take_too_long_are_not_read_again(floor):
    floor.worker()
    failed = floor.wait(floor.submit(ingest="slow"))
    assert (failed.state, failed.failure["code"], failed.attempt) == ("failed", "uploads_too_slow", 1)


@pytest.mark.long
def test_a_loss_that_is_no_number_ends_the_job_and_not_the_service(tmp_path, arrays, example):
    files = example / "checkpoint.pt", small_data(tmp_path / "data.npz", arrays)
    spec = {
        "model": {"architecture": "fmnist-cnn"},
        "defense": {"name": "aft", "steps": 2},
        "threat": {"eps": 0.1},
        "training": {"epochs": 4, "held_out": 50, "optimizer": {"name": "sgd", "lr": 100}, "schedule": "constant"},
        "evaluation": {"samples": 50, "diagnose": False},
    }
    with Service(tmp_path / "data") as service:
        job = service.submit(*files, spec)
        ended = service.wait(job)
        assert (ended["state"], ended["failure"]["code"], ended["failure"]["blame"]) == ("failed", "diverged", "user")
        spec["training"] = {"epochs": 1, "held_out": 50}
        assert service.wait(service.submit(*files, spec))["state"] == "succeeded"


def test_a_disk_that_is_full_for_the_real_engine(tmp_path, arrays, example):
    """It says so itself; whatever was stored before is kept by its worker."""
    spec = {"model": {"architecture": "fmnist-cnn"}, "defense": {"name": "aft", "steps": 1}, "threat": {"eps": 0.1}}
    spec |= {"training": {"epochs": 1, "held_out": 50}, "evaluation": {"samples": 20, "diagnose": False}}
    root = tmp_path / "job"
    make_workdir(root, spec, example / "checkpoint.pt", small_data(tmp_path / "data.npz", arrays))
    command = [sys.executable, "-m", "core", "run", str(root)]

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=small_files)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    told = [(event["code"], event["blame"]) for event in events if event["type"] == "failure"]
    assert (done.returncode, told) == (64, [("storage_full", "system")])
