"""The service of a team, on real servers: lists and claims with many jobs, pollers, supervision, take-over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.models import EXAMPLE, SPEC, prepare
from benchmarks.service import rss, submit, wait
from jobs.database import open_database
from jobs.leases import LeaseRepository
from stack.servers import Postgres
from stack.team import Team
from temperd.schema import upgrade

QUEUED, FINISHED, POLLERS, POLL_SECONDS = 1_000, 100_000, 200, 20.0
UNLIMITED = {"requests_per_minute": 1_000_000}

_MANY = """
INSERT INTO jobs (id, tenant_id, name, tags, state, phase, queue, defense, spec, attempt, stalled, lost, reached_epoch,
    reached_step, cancel_requested, pause_requested, used_seconds, progress, report, created_at, updated_at, started_at,
    finished_at)
SELECT 'job_{state}_' || n, 'default', 'job ' || n, '{{}}', '{state}', NULL, 'cpu', 'aft', '{spec}', 1, 0, 0, 10, 0,
    false, false, 0, '{progress}', '{report}', {base} + n, {base} + n, {base} + n, {base} + n
FROM generate_series(1, {count}) AS n
"""


def many(engine: Any, state: str, count: int, base: float) -> None:
    """So many jobs in a state, each with a spec and a report of the usual size."""
    progress = json.dumps({"epoch": 10, "epochs": 10, "fraction": 1.0, "eta_seconds": 0})
    spec = json.dumps({"data": {"dataset": None}, "training": {}, "padding": "x" * 2000})
    report = json.dumps({"padding": "x" * 20_000})
    statement = _MANY.format(state=state, count=count, base=base, spec=spec, progress=progress, report=report)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
        connection.exec_driver_sql("ANALYZE")


def timed(call: Callable[[], Any], times: int = 30) -> tuple[float, float]:
    """Median and worst milliseconds."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took), max(took)


def lists_and_claims() -> None:
    """GET /jobs over HTTP and a claim, with 1,000 waiting jobs, and then with 100,000 finished ones beside them."""
    with Postgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.url
        upgrade(url)
        engine = open_database(url)
        leases = LeaseRepository(engine)
        with (
            Team(Path(folder), database_url=url, **UNLIMITED) as team,
            httpx.Client(base_url=team.address, headers=team.headers, timeout=60) as client,
        ):
            many(engine, "queued", QUEUED, 1e9)
            print(f"\nteam: {QUEUED} queued jobs; bars: page 50 ms, claim 20 ms")
            for finished in (0, FINISHED):
                if finished:
                    many(engine, "succeeded", finished, 5e8)
                page = timed(lambda: client.get("/jobs", params={"limit": 50}).raise_for_status())
                claim = timed(lambda: leases.claim("bench", 3600, ["cpu"]))
                metrics = timed(lambda: client.get("/metrics").raise_for_status(), 5)
                print(
                    f"  {finished:7,} finished: page {page[0]:.1f} ms (worst {page[1]:.1f}), claim {claim[0]:.1f} ms "
                    f"(worst {claim[1]:.1f}), metrics {metrics[0]:.0f} ms"
                )
        engine.dispose()


def pollers(client: httpx.Client, address: str) -> None:
    """200 clients that poll a job while it trains."""
    job, _ = submit(client, {**SPEC, "training": {"epochs": 500}})
    while client.get(f"/jobs/{job}").json()["phase"] != "training":
        time.sleep(0.2)
    command = [sys.executable, "-m", "benchmarks.poll", address, job, str(POLLERS), str(POLL_SECONDS)]
    environment = {**os.environ, "TEMPER_API_KEY": client.headers["Authorization"].removeprefix("Bearer ")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    took = [float(line) for line in done.stdout.split()]
    errors = done.stderr.splitlines()
    client.post(f"/jobs/{job}/cancel")
    wait(client, job)
    took.sort()
    print(
        f"  {POLLERS} pollers, one request in 2 s each, a job training: {len(took)} requests, median "
        f"{statistics.median(took):.0f} ms, p99 {took[int(0.99 * len(took))]:.0f} ms, {len(errors)} errors; bar 500 ms"
    )


def supervision(client: httpx.Client, folder: Path) -> None:
    """Processor seconds that are not the engine's, in a job of minutes."""
    spec = {**SPEC, "training": {"epochs": 30}}
    root = folder / "alone"
    prepare(root, spec, EXAMPLE / "checkpoint.pt", EXAMPLE / "data.npz")
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "core", "run", root], check=True, stdout=subprocess.DEVNULL)
    alone = time.perf_counter() - started
    before = _cpu_of_workers()
    started = time.perf_counter()
    job, _ = submit(client, spec)
    wait(client, job)
    through = time.perf_counter() - started
    used = _cpu_of_workers() - before
    print(
        f"  a job of {alone:.0f} s: {through:.0f} s through the service; worker and supervisor used {used:.1f} s of "
        f"processor time, {100 * used / alone:.1f}% (bar 2% of five minutes, 6 s)"
    )


def _cpu_of_workers() -> float:
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (stat.parent / "cmdline").read_bytes()
            if b"temperd\0worker" in command:
                fields = stat.read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


def take_over(team: Team, client: httpx.Client) -> None:
    """From kill -9 of a worker to the next attempt, in leases."""
    lease = float(team.environment["TEMPER_LEASE_SECONDS"])
    job, _ = submit(client, {**SPEC, "training": {"epochs": 500}})
    while client.get(f"/jobs/{job}").json()["phase"] != "training":
        time.sleep(0.2)
    other = team.start_worker()
    time.sleep(5)
    team.workers[0].kill(signal.SIGKILL)
    started = time.perf_counter()
    while client.get(f"/jobs/{job}").json()["attempt"] == 1:
        time.sleep(0.05)
    elapsed = time.perf_counter() - started
    print(f"  a lost worker: its job goes on after {elapsed:.1f} s, {elapsed / lease:.2f} leases; bar 2")
    client.post(f"/jobs/{job}/cancel")
    wait(client, job)
    other.stop()


def main() -> None:
    """All of it."""
    lists_and_claims()
    folder = Path(tempfile.mkdtemp())
    try:
        with Team(folder / "team", lease_seconds=10, **UNLIMITED) as team:
            worker = team.start_worker()
            with httpx.Client(base_url=team.address, headers=team.headers, timeout=600) as client:
                while not client.get("/readyz").json()["ready"]:
                    time.sleep(0.2)
                below = [worker.pid, *_children(worker.pid)]
                idle = sum(_own_memory(pid) for pid in below)
                print(f"  an idle worker: {idle:.0f} MB in {len(below)} processes (its share); bar 150 MB")
                pollers(client, team.address)
                supervision(client, folder)
                take_over(team, client)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _own_memory(pid: int) -> float:
    """Proportional megabytes: what forked processes share counts once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return rss(pid)
    return int(rollup.partition("\nPss:")[2].split()[0]) / 1024
