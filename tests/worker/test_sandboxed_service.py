"""The service with its sandbox: jobs run in it, and without it there is no service unless somebody says so."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.core.workdirs import small_data
from tests.faults.floor import descendants, until
from tests.service import Service, alive
from tests.worker.test_child import event
from worker.child import Child

WITHOUT = [sys.executable, "-P", str(Path(__file__).with_name("without_landlock.py"))]
SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 1},
    "threat": {"eps": 0.1},
    "training": {"epochs": 1, "batch_size": 50, "held_out": 30},
    "evaluation": {"samples": 20, "diagnose": False},
}


class Watch(threading.Thread):
    """Of every process of jobs while it lasts, by its words: its filters of seccomp, its capabilities."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self.found, self.ended = pid, {}, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for pid in descendants(self._pid):
                self._look(Path(f"/proc/{pid}"))

    def _look(self, process: Path) -> None:
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        except (OSError, ValueError):
            return
        for word in (b"ingest", b"run", b"rank"):
            if word in words and b"worker.leash" not in words:
                self.found.setdefault(word.decode(), set()).add((status["Seccomp_filters"], status["CapEff"]))


def images(path: Path, arrays) -> Path:
    """An image folder with PNGs."""
    with zipfile.ZipFile(path, "w") as archive:
        for split, count in (("train", 120), ("test", 40)):
            pairs = zip(arrays[f"x_{split}"][:count], arrays[f"y_{split}"][:count], strict=True)
            for number, (image, label) in enumerate(pairs):
                with archive.open(f"{split}/{label}/{number}.png", "w") as file:
                    Image.fromarray(image).save(file, "PNG")
    return path


def test_jobs_run_in_it(tmp_path, example, arrays):
    with Service(tmp_path / "data") as service:
        checks = service.client.get("/readyz").json()["checks"]
        assert checks["sandbox"].startswith("ok (landlock ABI ")
        watch = Watch(service.process.pid)
        job = service.submit(example / "checkpoint.pt", small_data(tmp_path / "data.npz", arrays), SPEC)
        assert service.wait(job)["state"] == "succeeded"
        watch.ended.set()
    assert watch.found == {"ingest": {("1", "0" * 16)}, "run": {("1", "0" * 16)}}


@pytest.mark.long
def test_ranks_and_image_folders_run_in_it(tmp_path, example, arrays):
    with Service(tmp_path / "data") as service:
        watch = Watch(service.process.pid)
        spec = {**SPEC, "devices": 2, "data": {"format": "imagefolder"}}
        job = service.submit(example / "checkpoint.pt", images(tmp_path / "data.zip", arrays), spec)
        assert service.wait(job)["state"] == "succeeded"
        watch.ended.set()
    assert watch.found["rank"] == watch.found["run"] == {("1", "0" * 16)}


def test_without_it_nothing_starts_and_the_words_that_change_that_are_told(tmp_path):
    command = [*WITHOUT, "serve", "--port", "0", "--data-dir", tmp_path / "data"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1
    assert "Landlock is refused" in refused.stderr
    assert "TEMPER_SANDBOX=off-i-understand-the-risk" in refused.stderr


def test_off_where_the_operator_said_so(tmp_path, example, arrays):
    with Service(tmp_path / "data", command=WITHOUT, sandbox="off-i-understand-the-risk") as service:
        answer = service.client.get("/readyz").json()
        assert (answer["ready"], answer["checks"]["sandbox"]) == (True, "off")
        watch = Watch(service.process.pid)
        job = service.submit(example / "checkpoint.pt", small_data(tmp_path / "data.npz", arrays), SPEC)
        service.until(job, "phase", phase="baseline")
        watch.ended.set()
    assert {filters for filters, _ in watch.found["ingest"]} == {"1"}, "that of the test's own command"


def test_a_child_that_talks_without_end_fills_no_memory(tmp_path):
    program = """
import sys
print('{"type": "first"}', flush=True)
while True:
    sys.stdout.write('{"type": "x", "long": "' + 'x' * 2**22)
    sys.stdout.write('"}\\n{"type": "short"}\\n')
"""
    arguments = ["timeit", "-n1", "-r1", "-s", program, "pass"]
    child = Child(arguments, tmp_path / "log", time.monotonic() + 60, tmp_path, rules=None)
    assert event(child) == {"type": "first"}
    assert event(child) == {"type": "short"}, "a line of megabytes is no event"
    until(child._events.full, what="a queue that takes no more")
    child.kill()
    while not child.ended:
        child.next_event(1)
    assert not alive(child.pid)
