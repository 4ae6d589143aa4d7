"""The real service as a process of its own, on a free port and a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

TEMPERD = Path(sys.executable).with_name("temperd")


class Service:
    """``temperd serve``; use as a context manager, or kill and start it again.

    ``key``: what its client sends; ``command``: in place of temperd.
    """

    def __init__(
        self, data_dir: Path, *, key: str = "", command: Sequence[str | Path] = (TEMPERD,), **settings: Any
    ) -> None:
        self.data_dir, self.command = data_dir, command
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._environment = {**os.environ, **{f"TEMPER_{key.upper()}": str(value) for key, value in settings.items()}}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Service:
        command = [*self.command, "serve", "--port", "0", "--data-dir", self.data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        line = self.process.stdout.readline()
        assert "listens on" in line, line
        self.client = httpx.Client(base_url=line.split()[-1], timeout=60, headers=self._headers)
        return self

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.client.close()
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)

    # --- what users do

    def submit(self, checkpoint: Path, data: Path, spec: dict[str, Any] | None = None, **fields: str) -> str:
        """POST both files; returns the job's id."""
        answer = self.post(checkpoint, data, spec, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def post(self, checkpoint: Path, data: Path, spec: dict[str, Any] | None = None, **fields: str) -> httpx.Response:
        """POST /jobs as multipart."""
        if spec is not None:
            fields["spec"] = json.dumps(spec)
        files = {"checkpoint": (checkpoint.name, checkpoint.read_bytes()), "data": (data.name, data.read_bytes())}
        return self.client.post("/jobs", data=fields, files=files)

    def job(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/jobs/{job}").raise_for_status().json()

    def wait(self, job: str, seconds: float = 120) -> dict[str, Any]:
        """Until the job has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            current = self.client.get(f"/jobs/{job}", params={"wait": 5}).json()
            if current["state"] in ("succeeded", "failed", "cancelled"):
                return current
        raise AssertionError(f"still {current}")

    def events(self, job: str, last_event_id: int | None = None) -> Iterator[dict[str, Any]]:
        """The live stream, as {"event", "data", "id"}."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        with self.client.stream("GET", f"/jobs/{job}/events", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            event: dict[str, Any] = {}
            for line in stream.iter_lines():
                if not line:
                    if event:
                        yield event
                    event = {}
                elif not line.startswith(":"):
                    field, _, value = line.partition(": ")
                    event[field] = json.loads(value) if field == "data" else value

    def until(self, job: str, kind: str, **data: Any) -> dict[str, Any]:
        """Until an event of this type with this data has happened."""
        for event in self.events(job):
            if event["event"] == kind and data.items() <= event["data"].get("data", event["data"]).items():
                return event
        raise AssertionError(f"no {kind} {data}: {self.job(job)}")


def children(pid: int, words: str = "core run") -> list[int]:
    """Processes below ``pid`` with these words in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and words in command:
            found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between opening and reading
        return False
