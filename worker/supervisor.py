"""Claims a job and sees it through: work folder, children, lease, events, files, end."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from jobs.errors import LeaseLostError
from jobs.repository import Claim, JobRepository, new_id
from jobs.settings import Settings
from jobs.storage import Storage, Stored
from jobs.tables import Job
from worker.child import Child

EXIT_FAILED, EXIT_STOPPED = 64, 75  # as core and ingest exit after a failure event, or with their state saved
_TICK = 0.25
_PROGRESS_SECONDS = 0.5
_log = logging.getLogger(__name__)


class CancelledError(Exception):
    """The user asked to cancel; the child is dead."""


class DrainedError(Exception):
    """The service is stopping; the child saved what it could."""


class Supervisor:
    """Runs one job at a time; ``stopping`` set means: save, give the job back, return."""

    def __init__(self, repository: JobRepository, storage: Storage, settings: Settings) -> None:
        self._repository, self._storage, self._settings = repository, storage, settings
        self._owner = new_id("runner")
        self.stopping = threading.Event()

    def run_next(self) -> bool:
        """Claim and run one job; False if none was waiting."""
        claim = self._repository.claim(self._owner, self._settings.lease_seconds)
        if claim is None:
            return False
        workdir = self._settings.work_dir / f"{claim.job_id}-{claim.attempt}"
        workdir.mkdir(parents=True)
        try:
            _Attempt(claim, workdir, self._repository, self._storage, self._settings, self.stopping).run()
        except LeaseLostError as error:
            _log.warning("%s; its child was killed", error)
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return True


class _Attempt:
    """One attempt at one job."""

    def __init__(
        self,
        claim: Claim,
        workdir: Path,
        repository: JobRepository,
        storage: Storage,
        settings: Settings,
        stopping: threading.Event,
    ) -> None:
        self._claim, self._workdir = claim, workdir
        self._repository, self._storage, self._settings = repository, storage, settings
        self._stopping = stopping
        self._renewed = time.monotonic()
        self._progress_written = 0.0
        self._progress: dict[str, Any] = {}
        self._phase = ""
        self._failure: dict[str, Any] | None = None
        self._outputs: dict[str, Stored] = {}
        self._child: Child | None = None

    def run(self) -> None:
        """Prepare, run the children, and end the job in one guarded write."""
        try:
            job = self._prepare()
            self._event({"type": "phase", "phase": "validating"})
            for arguments in (["ingest", str(self._workdir)], ["core", "run", str(self._workdir)]):
                status = self._run_child(arguments, job)
                if status != 0:
                    self._end_badly(status)
                    return
            report = json.loads((self._workdir / "output" / "report.json").read_text())
            progress = {**self._progress, "fraction": 1.0, "eta_seconds": 0.0}
            self._repository.succeed(self._claim, report, self._outputs, progress)
            self._forget_state()
        except CancelledError:
            self._repository.cancelled(self._claim)
            self._forget_state()
        except DrainedError:
            self._repository.release(self._claim, charged=False)
        finally:
            if self._child is not None:
                self._child.kill()

    def _prepare(self) -> Job:
        """Fill the work folder from storage: spec, uploads, and the state of earlier attempts."""
        job = self._repository.job(self._claim.job_id)
        (self._workdir / "spec.json").write_text(json.dumps(job.spec))
        request = {
            "checkpoint": self._fetch_upload(job.checkpoint_upload, "checkpoint"),
            "data": self._fetch_upload(job.data_upload, "data") if job.data_upload else None,
            "datasets_dir": str(self._settings.datasets_dir),
        }
        (self._workdir / "ingest.json").write_text(json.dumps(request))
        (self._workdir / "state").mkdir()
        for name, artifact in self._repository.artifacts(job.id, "state").items():
            self._storage.fetch(artifact.key, artifact.sha256, self._workdir / "state" / name)
        return job

    def _fetch_upload(self, upload_id: str, name: str) -> dict[str, Any]:
        upload = self._repository.upload(upload_id)
        path = self._workdir / name
        self._storage.fetch(upload.key, upload.sha256, path)
        return {"path": str(path), "filename": upload.filename, "sha256": upload.sha256, "size": upload.size}

    def _run_child(self, arguments: list[str], job: Job) -> int:
        """Run one child to its end, renewing the lease and watching for cancellation meanwhile."""
        self._child = Child(arguments, self._workdir / "log.txt")
        self._progress = dict(job.progress)
        while not self._child.ended:
            event = self._child.next_event(_TICK)
            if event is not None:
                self._handle(event)
            self._keep_lease()
            if self._repository.cancel_requested(self._claim):
                self._child.kill()
                raise CancelledError
            if self._stopping.is_set():
                self._drain()
        return self._child.returncode

    def _keep_lease(self) -> None:
        if time.monotonic() - self._renewed > self._settings.lease_seconds / 3:
            self._repository.renew(self._claim, self._settings.lease_seconds)
            self._renewed = time.monotonic()

    def _drain(self) -> None:
        """Let the child save its state, store it, and give the job back uncharged."""
        child = self._child
        if child is None:
            raise DrainedError
        child.ask_to_stop()
        deadline = time.monotonic() + self._settings.drain_seconds
        while not child.ended and time.monotonic() < deadline:
            event = child.next_event(_TICK)
            if event is not None:
                self._handle(event)
            self._keep_lease()
        if not child.ended or child.returncode not in (0, EXIT_FAILED):
            child.kill()
            raise DrainedError

    def _handle(self, event: dict[str, Any]) -> None:
        kind = event.pop("type")
        if kind == "progress":
            self._show_progress(event)
        elif kind == "state":
            self._store_state(event)
        elif kind == "artifact":
            key = f"jobs/{self._claim.job_id}/{self._claim.attempt}/{event['file']}"
            self._outputs[event["file"]] = self._storage.put(key, self._workdir / "output" / event["file"])
        elif kind == "failure":
            self._failure = event
        elif kind != "report":
            self._event({"type": kind, **event})

    def _event(self, event: dict[str, Any]) -> None:
        kind = event.pop("type")
        if kind == "phase" and event["phase"] == self._phase:
            return  # ingest and engine both validate
        self._phase = event.get("phase", self._phase)
        self._repository.add_event(self._claim, kind, event)
        if kind == "epoch":
            self._progress["epoch"] = event["epoch"]

    def _show_progress(self, event: dict[str, Any]) -> None:
        self._progress.update(event)
        if time.monotonic() - self._progress_written > _PROGRESS_SECONDS:
            self._repository.set_progress(self._claim, self._progress)
            self._progress_written = time.monotonic()

    def _store_state(self, event: dict[str, Any]) -> None:
        """Store under a key of its own, move the pointer, then drop the file that it replaced."""
        name = event["file"]
        key = f"jobs/{self._claim.job_id}/state/{self._claim.attempt}-{event['epoch']}-{event['step']}-{name}"
        stored = self._storage.put(key, self._workdir / "state" / name)
        replaced = self._repository.add_state(self._claim, name, stored, epoch=event["epoch"], step=event["step"])
        if replaced is not None and replaced.key != key:
            self._storage.delete([replaced.key])

    def _end_badly(self, status: int) -> None:
        if status == EXIT_FAILED and self._failure is not None:
            self._repository.fail(self._claim, self._failure, self._outputs)
            self._forget_state()
        elif status == EXIT_STOPPED:
            self._repository.release(self._claim, charged=False)
        else:
            tail = self._child.log_tail() if self._child else ""
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._repository.add_event(self._claim, "lost", {"detail": f"the child {how}", "log": tail})
            self._repository.release(self._claim, charged=True)

    def _forget_state(self) -> None:
        """A finished job is not resumed: free its training state."""
        keys = [stored.key for stored in self._repository.drop_state(self._claim.job_id)]
        self._storage.delete(keys)
