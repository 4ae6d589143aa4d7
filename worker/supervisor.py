"""Claims a job and sees it through: work folder, children, lease, events, files, end."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from jobs.errors import JobNotFoundError, LeaseLostError, StorageCorruptError
from jobs.repository import Claim, JobRepository, new_id
from jobs.settings import Settings
from jobs.storage import Storage, Stored
from jobs.tables import Job
from worker.child import Child
from worker.lease import LeaseKeeper

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
        self._progress: dict[str, Any] = {}
        self._progress_written = 0.0
        self._phase = ""
        self._failure: dict[str, Any] | None = None
        self._outputs: list[str] = []
        self._numbers = itertools.count(1)
        self._child: Child | None = None
        self._keeper = LeaseKeeper(repository, claim, settings.lease_seconds, on_loss=self._kill_child)

    def run(self) -> None:
        """Prepare, run the children, and end the job in one guarded write."""
        with self._keeper:
            try:
                self._run()
            except CancelledError:
                self._repository.cancelled(self._claim)
                self._forget_state()
            except DrainedError:
                self._repository.release(self._claim, charged=False)
            except StorageCorruptError as error:
                self._repository.fail(self._claim, _failure("storage_corrupt", str(error), "submit the job again"), {})
            finally:
                self._kill_child()

    def _run(self) -> None:
        self._event({"type": "phase", "phase": "validating"})
        job = self._prepare()
        self._progress = dict(job.progress)
        for arguments in (["ingest", str(self._workdir)], ["core", "run", str(self._workdir)]):
            status = self._run_child(arguments)
            if status != 0:
                self._end_badly(status)
                return
        report = json.loads((self._workdir / "output" / "report.json").read_text())
        progress = {**self._progress, "fraction": 1.0, "eta_seconds": 0.0}
        self._repository.succeed(self._claim, report, self._store_outputs(), progress)
        self._forget_state()

    def _prepare(self) -> Job:
        """Fill the work folder from storage: spec, uploads, and the state of earlier attempts."""
        job = self._repository.job(self._claim.job_id)
        (self._workdir / "spec.json").write_text(json.dumps(job.spec))
        request = {
            "checkpoint": self._fetch_upload(job.checkpoint_upload, "checkpoint") if job.checkpoint_upload else None,
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

    def _run_child(self, arguments: list[str]) -> int:
        """Run one child to its end, watching for cancellation, a stop and the lease meanwhile."""
        child = self._child = Child(arguments, self._workdir / "log.txt")
        while not child.ended:
            self._take_event(child)
            if self._repository.cancel_requested(self._claim):
                child.kill()
                raise CancelledError
            if self._stopping.is_set():
                self._drain(child)
        return child.returncode

    def _take_event(self, child: Child) -> None:
        event = child.next_event(_TICK)
        if self._keeper.lost:
            raise LeaseLostError(f"attempt {self._claim.attempt} lost its lease on job {self._claim.job_id}")
        if event is not None:
            self._handle(event)

    def _drain(self, child: Child) -> None:
        """Let the child save its state, and store it; a child that came to its own end in time is left to it."""
        child.ask_to_stop()
        deadline = time.monotonic() + self._settings.drain_seconds
        while not child.ended and time.monotonic() < deadline:
            self._take_event(child)
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
            self._outputs.append(event["file"])
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
        path = self._workdir / "state" / event["file"]
        epoch, step = event["epoch"], event["step"]
        # numbered: a place may be told twice with other bytes, and a stored file is never overwritten
        key = f"jobs/{self._claim.job_id}/state/{self._claim.attempt}-{next(self._numbers)}-{event['slot']}"
        try:
            stored = self._storage.put(key, path)
        except FileNotFoundError:
            return  # the child is two saves ahead: the newer ones follow
        replaced = self._repository.add_state(self._claim, event["slot"], stored, epoch=epoch, step=step)
        if replaced is not None and replaced.key != key:
            self._storage.delete([replaced.key])

    def _store_outputs(self) -> dict[str, Stored]:
        """Stored only now, right before the rows that make them exist."""
        prefix = f"jobs/{self._claim.job_id}/{self._claim.attempt}"
        return {name: self._storage.put(f"{prefix}/{name}", self._workdir / "output" / name) for name in self._outputs}

    def _end_badly(self, status: int) -> None:
        if status == EXIT_FAILED and self._failure is not None:
            self._repository.fail(self._claim, self._failure, self._store_outputs())
            self._forget_state()
        elif status == EXIT_STOPPED:
            self._repository.release(self._claim, charged=False)
        else:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            # the log may hold paths: for the operator, not for the API
            _log.error("the child of %s %s; its log ends:\n%s", self._claim.job_id, how, self._log_tail())
            self._repository.add_event(self._claim, "lost", {"detail": f"the child {how} while {self._phase}"})
            self._repository.release(self._claim, charged=True)

    def _log_tail(self) -> str:
        return self._child.log_tail() if self._child else ""

    def _kill_child(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _forget_state(self) -> None:
        """A finished job is not resumed: free its training state."""
        try:
            freed = self._repository.drop_state(self._claim.job_id)
        except JobNotFoundError:
            return  # deleted in this very moment, and its files with it
        self._storage.delete([stored.key for stored in freed])


def _failure(code: str, detail: str, hint: str) -> dict[str, Any]:
    return {"code": code, "blame": "system", "detail": detail, "hint": hint}
