"""python -m stack: a team's whole service on this machine, as processes; what docker-compose.yml runs as containers.

Postgres, Redis, API, workers and reconciler, with their data in one folder that the next run finds again. A process
that ends by itself is started again, as a container would be. Ctrl-C ends all of them: first what is ours, so that
running jobs save their state and are given back, then the servers. Nothing outlives this process, even if it is killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from stack.logs import Tail
from stack.servers import Server
from stack.team import Process, Team, end

_TICK = 0.3
_STOP_SECONDS = 34.0  # for ours, all at once; the servers take a second
_RESTARTS, _WITHIN_SECONDS = 5, 60.0


def main(
    data_dir: Annotated[Path, typer.Option(help="Database, files, work folders and logs.")] = Path("temper-stack"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the API; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="How many; each runs one job at a time.")] = 1,
    s3: Annotated[
        bool, typer.Option("--s3", help="Files go to an S3 server. It is in memory: nothing outlives this run.")
    ] = False,
) -> None:
    """Run it until Ctrl-C."""
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _asked_to_end(ending))
    with ExitStack() as stack:
        try:
            team = stack.enter_context(_team(data_dir.absolute(), port, s3=s3))
            status = Run(team, workers).until(ending)
        except RuntimeError as error:
            sys.exit(f"stack: {error}")
    sys.exit(status)


def _asked_to_end(ending: threading.Event) -> None:
    if ending.is_set():
        os._exit(1)  # the rest is on a leash and dies with this process
    ending.set()


@contextmanager
def _team(folder: Path, port: int, *, s3: bool) -> Iterator[Team]:
    """Everything but workers and reconciler."""
    if s3:
        with Team(port=port) as team:
            yield team
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"stack: another one runs in {folder}")
        for log in (*folder.glob("*.log"), *folder.glob("*/log.txt")):
            log.unlink()  # of the last run
        _say(f"starting, a few seconds; data in {folder}")
        with Team(folder, store_url=(folder / "store").as_uri(), keep=True, port=port) as team:
            yield team


class Run:
    """A team at work: shows its logs and starts again what ended."""

    def __init__(self, team: Team, workers: int) -> None:
        self._team = team
        self._servers: dict[str, Server] = {type(server).__name__.lower(): server for server in team.servers}
        self._processes: dict[str, Process] = {}
        if team.api:
            self._processes["api"] = team.api
        for _ in range(workers):
            process = team.start_worker()
            self._processes[process.log.stem] = process
        self._processes["reconciler"] = team.start_reconciler()
        logs = {name: server.log for name, server in self._servers.items()}
        self._tail = Tail({**logs, **{name: process.log for name, process in self._processes.items()}})
        self._ended: list[float] = []

    def until(self, ending: threading.Event) -> int:
        """Watch until told to end, or until something ends again and again; returns the exit status."""
        ready, status = False, 0
        while not ending.wait(_TICK):
            self._tail.show()
            if not ready and (ready := _is_ready(self._team.address)):
                _say(f"ready: {self._team.address}, API docs at {self._team.address}/docs; Ctrl-C ends it")
                _say(f"its key is in {self._team.folder / 'key'}")
            if not self._start_again():
                status = 1
                break
        self._end()
        return status

    def _start_again(self) -> bool:
        """Whatever ended; False if that happens too often."""
        for name, server in self._servers.items():
            if server.process and server.process.poll() is not None:
                self._tell(name, server.process.returncode)
                server.start()
        for name, process in self._processes.items():
            if process.process.poll() is not None:
                self._tell(name, process.process.returncode)
                self._processes[name] = self._team.again(process)
        self._ended = [moment for moment in self._ended if time.monotonic() - moment < _WITHIN_SECONDS]
        if len(self._ended) < _RESTARTS:
            return True
        _say("too many processes ended; see above")
        return False

    def _tell(self, name: str, status: int) -> None:
        self._tail.show()
        self._ended.append(time.monotonic())
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        _say(f"{name} {how}; it is started again")

    def _end(self) -> None:
        _say("ending; running jobs save their state (Ctrl-C again kills)")
        late = end([*self._processes.values()], _STOP_SECONDS, meanwhile=self._tail.show)
        for process in late:
            _say(f"{process.log.stem} took too long and was killed; its job goes on from its last saved state")


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _say(text: Any) -> None:
    typer.echo(f"stack: {text}")


if __name__ == "__main__":
    typer.run(main)
