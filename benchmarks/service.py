"""The service: start-up, memory, latency of the main calls, and what it costs over the bare engine."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.models import EXAMPLE, SPEC, prepare

PAIRS = 3


@contextmanager
def service(folder: Path) -> Iterator[tuple[httpx.Client, int]]:
    """temperd serve; yields a client and the process id."""
    temperd = Path(sys.executable).with_name("temperd")
    started = time.perf_counter()
    with subprocess.Popen(
        [temperd, "serve", "--port", "0", "--data-dir", folder], stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline() if process.stdout else ""
        try:
            with httpx.Client(base_url=line.split()[-1], timeout=600) as client:
                client.get("/readyz").raise_for_status()
                print(
                    f"\nservice: ready after {time.perf_counter() - started:.1f} s, {rss(process.pid):.0f} MB resident"
                )
                yield client, process.pid
        finally:
            process.terminate()
            process.wait(60)


def rss(pid: int) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def submit(client: httpx.Client, spec: dict[str, object]) -> tuple[str, float]:
    """POST the example's files; the job and the milliseconds."""
    files = {
        name: (EXAMPLE / file).read_bytes() for name, file in (("checkpoint", "checkpoint.pt"), ("data", "data.npz"))
    }
    started = time.perf_counter()
    answer = client.post("/jobs", data={"spec": json.dumps(spec)}, files=files)
    elapsed = 1000 * (time.perf_counter() - started)
    return str(answer.raise_for_status().json()["id"]), elapsed


def wait(client: httpx.Client, job: str) -> None:
    """Until it has ended."""
    while client.get(f"/jobs/{job}", params={"wait": 30}).json()["state"] in ("queued", "running"):
        pass


def latencies(client: httpx.Client) -> None:
    """GET /jobs/{id} and POST /jobs while a job trains."""
    job, _ = submit(client, {**SPEC, "training": {"epochs": 500}})
    while client.get(f"/jobs/{job}").json()["phase"] != "training":
        time.sleep(0.2)
    gets = []
    for _ in range(200):
        started = time.perf_counter()
        client.get(f"/jobs/{job}").raise_for_status()
        gets.append(1000 * (time.perf_counter() - started))
        time.sleep(0.02)
    posts, waiting = [], []
    for _ in range(15):
        other, elapsed = submit(client, SPEC)
        posts.append(elapsed)
        waiting.append(other)
    print(f"  GET /jobs/ID while a job trains: median {statistics.median(gets):.1f} ms, p99 {sorted(gets)[-2]:.1f} ms")
    print(f"  POST /jobs with the example's files, while a job trains: median {statistics.median(posts):.0f} ms")
    for each in [*waiting, job]:
        client.post(f"/jobs/{each}/cancel")
    wait(client, job)
    posts = []
    for _ in range(15):
        other, elapsed = submit(client, SPEC)
        posts.append(elapsed)
        client.post(f"/jobs/{other}/cancel")
        wait(client, other)
    print(f"  POST /jobs with the example's files, idle: median {statistics.median(posts):.0f} ms")


def overhead(client: httpx.Client, folder: Path) -> None:
    """A job through REST against ``python -m core run`` on the same spec, in pairs."""
    through_rest, alone = [], []
    for pair in range(PAIRS):
        started = time.perf_counter()
        job, _ = submit(client, SPEC)
        wait(client, job)
        through_rest.append(time.perf_counter() - started)
        root = folder / f"alone-{pair}"
        prepare(root, SPEC, EXAMPLE / "checkpoint.pt", EXAMPLE / "data.npz")
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "core", "run", root], check=True, stdout=subprocess.DEVNULL)
        alone.append(time.perf_counter() - started)
    rest, engine = statistics.median(through_rest), statistics.median(alone)
    print(f"  one job: {rest:.1f} s through REST, {engine:.1f} s by the engine alone (medians of {PAIRS})")
    bar = 0.05 * engine + 5
    print(f"  overhead {rest - engine:+.1f} s, {100 * (rest / engine - 1):+.1f}%; the bar of 5% + 5 s is {bar:.1f} s")


def main() -> None:
    """All of it."""
    folder = Path(tempfile.mkdtemp())
    try:
        with service(folder / "data") as (client, _):
            latencies(client)
            overhead(client, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
