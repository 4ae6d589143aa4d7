"""Temper as a team runs it, as plain processes on loopback: API, workers, reconciler, and the servers they need."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack.servers import S3, Postgres, Redis, Server, leash

_STOP_SECONDS = 40.0
_TICK = 0.1


class Process:
    """One ``temperd`` command, in a session of its own, that dies with this process; its output goes to ``log``."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        log: Path,
        *,
        speaks: bool = True,
    ) -> None:
        """``speaks``: what it says on stdout is for ``first_line``."""
        self.arguments, self.environment, self.log, self.speaks = arguments, environment, log, speaks
        command = [sys.executable, "-P", "-m", "temperd", *arguments]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else output,
                stderr=output,
                text=True,
                start_new_session=True,
                preexec_fn=leash(),
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def first_line(self) -> str:
        """What it says once it is ready."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"it ended:\n{self.log.read_text()[-3000:]}")
        return line

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL, seconds: float = _STOP_SECONDS) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        status = self.process.wait(seconds)
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not heed it."""
        if self.process.poll() is None:
            try:
                self.kill(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                self.kill()


class Team:
    """A context manager. ``settings`` become TEMPER_* variables of every process."""

    def __init__(
        self, folder: Path | None = None, *, database_url: str | None = None, broker_url: str | None = None,
        store_url: str | None = None, keep: bool = False, port: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        """The URLs: of servers that run already, or that something stands in front of; the rest is started.

        ``keep``: those servers have their data in ``folder`` and find it again the next time. ``port``: of the API, any
        free one if 0.
        """
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="temper-team-"))
        self._given = {"database_url": database_url, "broker_url": broker_url, "store_url": store_url}
        self._keep, self._port, self._settings = keep, port, settings
        self._stack = contextlib.ExitStack()
        self.environment: dict[str, str] = {}
        self.address = ""
        self.servers: list[Server] = []
        self.workers: list[Process] = []
        self.key = ""
        self.api: Process | None = None

    def __enter__(self) -> Team:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers()
            self._run("migrate")
            self.key = self._find_key()
            self.start_api(self._port)
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start_servers(self) -> None:
        urls = dict(self._given)
        environment = dict(os.environ)
        if urls["database_url"] is None:
            postgres = Postgres(self._place("postgres"))
            self._serve(postgres)
            urls["database_url"] = postgres.url
        if urls["broker_url"] is None:
            redis = Redis(self._place("redis"))
            self._serve(redis)
            urls["broker_url"] = redis.url
        if urls["store_url"] is None:
            s3 = S3(self._place("s3"))
            self._serve(s3)
            environment.update(s3.environment)
            urls["store_url"] = s3.url
        settings = {**urls, "data_dir": self.folder / "data", **self._settings}
        environment.update({f"TEMPER_{key.upper()}": str(value) for key, value in settings.items()})
        self.environment = environment

    def _place(self, name: str) -> Path | None:
        return self.folder / name if self._keep else None

    def _serve(self, server: Server) -> None:
        self.servers.append(server)
        self._stack.enter_context(server)

    def _find_key(self) -> str:
        """A key that may do everything: of the run before, if its database is still there, or a new one."""
        path = self.folder / "key"
        if not path.exists() or not self._keep:
            made = ("--tenant", "default", "--name", "stack", "--scopes", "jobs:read,jobs:write,admin")
            path.touch(mode=0o600)
            path.write_text(self._run("keys", "create", *made))
        return path.read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """What a client of the API sends."""
        return {"Authorization": f"Bearer {self.key}"}

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "temperd", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"temperd {arguments[0]} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def start_api(self, port: int = 0) -> Process:
        """One more API; the newest one's address is ``address``."""
        self.api = self._process(["api", "--port", str(port)], "api", speaks=True)
        self.address = self.api.first_line().split()[-1]
        return self.api

    def start_worker(self, *arguments: str, **environment: str) -> Process:
        """One more worker."""
        worker = self._process(["worker", *arguments], f"worker-{len(self.workers)}", environment)
        self.workers.append(worker)
        return worker

    def start_reconciler(self) -> Process:
        """A reconciler beside the workers, which reconcile as well."""
        return self._process(["reconciler"], "reconciler")

    def again(self, process: Process) -> Process:
        """The same once more, in place of one that ended."""
        new = self._started(Process(process.arguments, process.environment, process.log, speaks=process.speaks))
        if process is self.api:
            self.api = new
            self.address = new.first_line().split()[-1]
        self.workers = [new if worker is process else worker for worker in self.workers]
        return new

    def _process(
        self, arguments: list[str], name: str, more: dict[str, str] | None = None, *, speaks: bool = False
    ) -> Process:
        environment, log = {**self.environment, **(more or {})}, self.folder / f"{name}.log"
        return self._started(Process(arguments, environment, log, speaks=speaks))

    def _started(self, process: Process) -> Process:
        self._stack.callback(process.stop)
        return process

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def end(processes: list[Process], seconds: float, meanwhile: Callable[[], None]) -> list[Process]:
    """Ask all of them to stop at once, and kill what is still there after ``seconds``; returns those."""
    for process in processes:
        process.ask_to_stop()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.process.poll() is None for process in processes):
        time.sleep(_TICK)
        meanwhile()
    late = [process for process in processes if process.process.poll() is None]
    for process in late:
        process.kill()
    return late
