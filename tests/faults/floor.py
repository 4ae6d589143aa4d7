"""A floor of workers over real Postgres and Redis, jobs put straight into the database, and what to look at."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from jobs.database import open_database, writing
from jobs.keys import KeyRepository
from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.retention import Retention
from jobs.scopes import SCOPES
from jobs.states import FINAL
from jobs.storage import Storage
from jobs.tables import DEFAULT_TENANT, Job, Upload
from jobs.upkeep import Upkeep
from stack.servers import leash
from worker.queue import Doorbell

ENGINE = Path(__file__).parent / "engine"
ROOT = Path(__file__).parents[2]
LEASE = 2.0
EXIT_SECONDS = 30


class Worker:
    """``temperd worker`` as a process; ``program`` runs it under a fault."""

    def __init__(self, environment: dict[str, str], log: Path, program: list[str]) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *program, "worker"], env=environment, stdin=subprocess.DEVNULL, stderr=stderr,
                cwd="/", preexec_fn=leash(),
            )  # fmt: skip

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise

    def below(self, words: str) -> list[int]:
        """Ids of the processes below it that have these words in their command line."""
        return [pid for pid in descendants(self.process.pid) if words in command_of(pid)]

    def engine(self) -> int:
        """The id of its engine, once there is one."""
        return until(lambda: self.below("core run"), what="an engine")[0]


class Floor:
    """A context manager; ``engine=False`` runs the real engine instead of the one that stands in."""

    def __init__(
        self, folder: Path, database_url: str, broker_url: str, *, engine: bool = True, **settings: Any
    ) -> None:
        self.folder = folder
        self.store_url = str(settings.pop("store_url", (folder / "store").as_uri()))
        values = {"lease_seconds": LEASE, "drain_seconds": 20, **settings}
        self.environment = {
            **os.environ,
            **{f"TEMPER_{key.upper()}": str(value) for key, value in values.items()},
            "TEMPER_DATABASE_URL": database_url,
            "TEMPER_BROKER_URL": broker_url,
            "TEMPER_STORE_URL": self.store_url,
            "TEMPER_DATA_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join([*([str(ENGINE)] if engine else []), str(ROOT)]),
        }
        self._engine = open_database(database_url)
        webhooks = bool(settings.get("webhook_url"))
        self.jobs = JobRepository(self._engine, DEFAULT_TENANT, webhooks=webhooks)
        self.leases = LeaseRepository(self._engine, webhooks=webhooks)
        self.upkeep = Upkeep(self._engine, webhooks=webhooks)
        self.storage = Storage(self.store_url)
        self.bell = Doorbell(broker_url)
        self.workers: list[Worker] = []
        _, key = KeyRepository(self._engine).create(DEFAULT_TENANT, "tests", SCOPES)
        self.headers = {"Authorization": f"Bearer {key}"}  # for its API

    def __enter__(self) -> Floor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        late = []
        for worker in self.workers:
            try:
                worker.stop(signal.SIGTERM, EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                late.append(worker.log.read_text()[-3000:])
        self._engine.dispose()
        if kind is None:
            assert not late, f"a worker did not end within {EXIT_SECONDS} s:\n{late[0]}"

    def worker(self, *program: str, **environment: str) -> Worker:
        """One more; ``program`` in place of ``-m temperd``: it gets "worker" as its last argument."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker({**self.environment, **environment}, log, [*(program or ("-m", "temperd"))])
        self.workers.append(worker)
        return worker

    def submit(
        self, *, epochs: int = 5, seed: int = 1, devices: int = 1, ring: bool = True, queue: str = "cpu", **tags: Any
    ) -> str:
        """Put a job for the engine that stands in, as the API would."""
        tags = {key: str(value) for key, value in tags.items()}
        spec = {"data": {"dataset": None}, "training": {}, "epochs": epochs, "seed": seed, "devices": devices}
        spec |= {"tags": tags}
        job = self.jobs.create(NewJob(spec, queue, "aft", None, tags, epochs, None, None))
        if ring:
            self.bell.ring(queue, job.id)
        return job.id

    def expire_uploads(self) -> None:
        """As if all that expires had been here for long."""
        with Session(writing(self._engine)) as session, session.begin():
            session.execute(update(Upload).where(Upload.expires_at.is_not(None)).values(expires_at=0.0))
        self.storage.delete([file.key for file in Retention(self._engine).expire_uploads()])

    def state(self, job_id: str) -> str:
        return self.jobs.job(job_id).state

    def wait(self, job_id: str, seconds: float = 60) -> Job:
        """Until it has ended."""
        try:
            until(lambda: self.state(job_id) in FINAL, seconds, what=f"the end of {job_id}")
        except AssertionError as error:
            logs = "\n".join(worker.log.read_text()[-2000:] for worker in self.workers)
            raise AssertionError(f"{error}: {self.state(job_id)}\n{logs}") from None
        return self.jobs.job(job_id)

    def until_epoch(self, job_id: str, epoch: int, seconds: float = 60) -> None:
        until(lambda: self.jobs.job(job_id).progress["epoch"] >= epoch, seconds, what=f"epoch {epoch}")

    def succeeded(self, job_id: str, *, epochs: int = 5, seed: int = 1, seconds: float = 60) -> Job:
        """It ends well, with the weights of an uninterrupted run and each epoch once; nothing stale was written."""
        job = self.wait(job_id, seconds)
        assert job.state == "succeeded", job.failure
        assert self.weights(job_id) == weights(epochs, seed)
        self.check_history(job_id, epochs)
        return job

    def weights(self, job_id: str) -> str:
        artifact = self.jobs.artifacts(job_id, "output")["checkpoint.pt"]
        path = self.folder / f"{job_id}.weights"
        self.storage.fetch([artifact.key], artifact.sha256, path)
        return path.read_text()

    def check_history(self, job_id: str, epochs: int | None = None) -> None:
        """Attempts never go back, claims and ends fit together, every epoch is told by the attempt that made it."""
        events = self.jobs.events(job_id, after=0, limit=10_000)
        attempts = [event.attempt for event in events]
        assert attempts == sorted(attempts), "an event of a stale attempt came after one of its successor"
        ends = [event for event in events if event.type == "failure" or event.data.get("state") in FINAL]
        assert len(ends) == 1
        assert ends[0] is events[-1], "nothing is written after the end"
        claims = [event.data["attempt"] for event in events if event.data.get("state") == "running"]
        assert claims == [*range(1, len(claims) + 1)]
        if epochs is not None:
            told = [event.data["epoch"] for event in events if event.type == "epoch"]
            assert told == [*range(1, epochs + 1)]
            outputs = self.jobs.artifacts(job_id, "output").values()
            assert {output.attempt for output in outputs} == {attempts[-1]}, "files are of the attempt that ended it"
        assert self.jobs.artifacts(job_id, "state") == {}, "the training state is freed"

    def begins(self, job_id: str) -> list[int]:
        """The epoch after which each attempt that trained began."""
        lines = "".join(chunk.text for chunk in self.jobs.log(job_id)).splitlines()
        return [int(line.rpartition(" ")[2]) for line in lines if line.startswith("begins after epoch")]

    def attempt(self, job_id: str) -> int:
        return self.jobs.job(job_id).attempt


def weights(epochs: int, seed: int) -> str:
    """What an uninterrupted run of the engine that stands in gives."""
    value = str(seed)
    for _ in range(epochs):
        value = hashlib.sha256(value.encode()).hexdigest()
    return value


def until(condition: Any, seconds: float = 30, *, what: str = "it") -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


def processes() -> list[int]:
    """Ids of all processes."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def group_of(pid: int) -> int:
    """Its process group; 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for each in processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(each)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
