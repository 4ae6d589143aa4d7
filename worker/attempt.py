"""One attempt at one job, seen through: work folder, children, lease, events, files, end."""

from __future__ import annotations

import errno
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.database import AWAY
from jobs.errors import (
    JobsError,
    LeaseLostError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
)
from jobs.leases import Claim, LeaseRepository
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository
from jobs.storage import Storage, Stored
from worker import oom
from worker.child import Child
from worker.files import AttemptFiles, StrayFileError
from worker.flag import Flag
from worker.lease import LeaseKeeper
from worker.log import LogBuffer
from worker.persistence import T, aside, persist
from worker.sandbox.rules import Rules

# as core and ingest exit: after a failure event, without one of several processes, with their state saved
EXIT_FAILED, EXIT_LOST, EXIT_STOPPED = 64, 70, 75
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_OUT_OF_MEMORY = {
    "code": "out_of_memory",
    "blame": "user",
    "detail": "the worker's memory did not suffice: the kernel killed the child",
    "hint": "lower training.batch_size and evaluation.batch_size",
}
_TOO_SLOW = {
    "code": "uploads_too_slow",
    "blame": "user",
    "detail": "the uploads could not be read within hours: the limit of processor time was reached",
    "hint": "send less data, or images that are smaller; npz is read fastest",
}
_TIME_IS_UP = {
    "code": "time_limit",
    "blame": "user",
    "detail": "the job has run for max_minutes without coming to its end",
    "hint": "raise max_minutes, or ask for less: fewer training.epochs, a smaller evaluation.samples, suite quick",
}
_TICK = 0.25
_CONCLUDE_SECONDS = 3.0  # for telling what became of the job, when the service stops
_PROGRESS_SECONDS = 0.5
_log = logging.getLogger(__name__)


class CancelledError(Exception):
    """The user asked to cancel; the child is dead."""


class StoppedError(Exception):
    """The service is stopping, or the user asked for a pause; the child saved what it could and is dead."""


class TimeIsUpError(Exception):
    """The job has run as long as its user allows; the child is dead."""


class SilentError(Exception):
    """The child has said nothing for too long: it hangs."""


class Attempt:
    """One attempt at one job; ``asked``: the moment before it was claimed, by time.monotonic."""

    def __init__(
        self,
        claim: Claim,
        asked: float,
        workdir: Path,
        leases: LeaseRepository,
        storage: Storage,
        settings: Settings,
        stopping: Flag,
        signer: Signer,
        signing_keys: SigningKeyRepository,
    ) -> None:
        self._claim, self._workdir = claim, workdir
        self._leases, self._settings, self._stopping = leases, settings, stopping
        self._signer, self._signing_keys = signer, signing_keys
        self._progress: dict[str, Any] = {}
        self._progress_written = 0.0
        self._phase = ""
        self._failure: dict[str, Any] | None = None
        self._outputs: list[str] = []
        self._child: Child | None = None
        self._drained_by: float | None = None  # once the child was asked to stop
        self._concluded_by: float | None = None  # once the service stops, and the child is dead
        self._heard = time.monotonic()  # when the child last said something
        self._lines = LogBuffer()
        self._oom_kills = 0
        self._keeper = LeaseKeeper(
            leases, claim, settings.lease_seconds, asked=asked, stop_child=self._kill_child, renewed=self._renewed
        )
        self._files = AttemptFiles(claim, workdir, leases, storage, settings, heed=self._heed)

    def run(self) -> None:
        """Prepare, run the children, and end the job in one guarded write."""
        with self._keeper:
            try:
                self._workdir.mkdir(parents=True)
                self._run()
            except CancelledError:
                self._flush_log(now=True)
                self._files.discard(self._conclude(lambda: self._leases.cancelled(self._claim)))
            except TimeIsUpError:
                self._flush_log(now=True)
                self._files.discard(self._conclude(lambda: self._leases.fail(self._claim, _TIME_IS_UP, {})))
            except StoppedError:
                self._give_back()
            except (StorageCorruptError, StorageFullError) as error:
                self._fail(error)
            except (SilentError, StorageError, StrayFileError) as error:
                self._lose(str(error))
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._fail(StorageFullError("the worker's disk is full", "free some space, then resume the job"))
            finally:
                self._kill_child()

    def _fail(self, error: JobsError) -> None:
        """End with a fault of the service. A full disk can be mended: the states that were saved before are kept."""
        self._kill_child()
        self._flush_log(now=True)
        failure = {"code": error.code, "blame": "system", "detail": str(error), "hint": error.hint}
        keep = isinstance(error, StorageFullError)
        self._files.discard(self._conclude(lambda: self._leases.fail(self._claim, failure, {}, keep_state=keep)))

    def _lose(self, how: str) -> None:
        """The attempt came to nothing: its log says how far, and the next one is not the first any more."""
        self._kill_child()
        self._flush_log(now=True)
        self._conclude(lambda: self._leases.release(self._claim, charged=True, lost=how))

    def _give_back(self) -> None:
        """Uncharged."""
        self._kill_child()
        self._flush_log(now=True)
        self._conclude(lambda: self._leases.release(self._claim, charged=False))

    def _run(self) -> None:
        self._event({"type": "phase", "phase": "validating"})
        job = self._files.prepare()
        for name in self._files.damaged:
            self._event({"type": "damaged", "file": name})
        self._progress = dict(job.progress)
        sandboxed, files = self._settings.sandbox == "required", self._files
        for command, rules_of in ((["ingest"], files.ingest_rules), (["core", "run"], files.engine_rules)):
            status = self._run_child([*command, str(self._workdir)], rules_of(job) if sandboxed else None)
            self._flush_log(now=True)
            if status != 0:
                self._end_badly(status)
                return
        report = self._files.report()
        progress = {**self._progress, "fraction": 1.0, "eta_seconds": 0.0}
        outputs = self._files.store_outputs(self._outputs)
        outputs |= self._files.store_certificate(report, job.spec, outputs, self._signer, self._signing_keys)
        self._end(lambda: self._leases.succeed(self._claim, report, outputs, progress))

    def _persist(self, write: Callable[[], T]) -> T:
        return persist(write, self._heed)

    def _end(self, write: Callable[[], list[Stored]]) -> None:
        """The guarded write that ends the job; then the files that it let go."""
        self._files.discard(self._persist(write))

    def _conclude(self, write: Callable[[], T]) -> T:
        """A write when the child is dead and no wish counts any more."""
        return persist(write, self._heed_the_end)

    def _heed_the_end(self) -> None:
        """A database that is away does not keep a service from stopping: then the lease runs out."""
        self._check_lease()
        if self._stopping.is_set():
            self._concluded_by = self._concluded_by or time.monotonic() + _CONCLUDE_SECONDS
            if time.monotonic() > self._concluded_by:
                raise LeaseLostError(f"what became of job {self._claim.job_id} could not be told; its lease runs out")

    def _check_lease(self) -> None:
        if self._keeper.lost:
            raise LeaseLostError(f"attempt {self._claim.attempt} lost its lease on job {self._claim.job_id}")

    def _run_child(self, arguments: list[str], rules: Rules | None) -> int:
        """Run one child to its end, watching for the user's wishes, a stop and the lease meanwhile."""
        self._child = None  # one that has ended hears of no stop
        self._heed()
        self._oom_kills = oom.kills()
        log, home = self._workdir / "log.txt", self._workdir / f"home-{arguments[0]}"
        child = self._child = Child(arguments, log, self._keeper.deadline, home, rules)
        self._heard = time.monotonic()
        while not child.ended:
            self._take_event(child)
        child.kill()  # nothing that it started lives on
        self._heed_ends()
        if self._drained_by is not None and child.returncode not in (0, EXIT_FAILED):
            raise StoppedError
        return child.returncode

    def _heed(self) -> None:
        """What has to be done at once, asked again and again while anything takes its time.

        A child that is asked to stop saves its state, and that is stored, as long as there is time to drain.
        Raises: LeaseLostError, CancelledError, TimeIsUpError, StoppedError.
        """
        self._check_lease()
        self._heed_ends()
        if not (self._stopping.is_set() or self._keeper.orders.pause):
            return
        if self._child is None:
            raise StoppedError
        if self._drained_by is None:
            self._child.ask_to_stop()
            self._drained_by = time.monotonic() + self._settings.drain_seconds
        elif time.monotonic() > self._drained_by:
            self._kill_child()
            raise StoppedError

    def _heed_ends(self) -> None:
        orders = self._keeper.orders
        if orders.cancel or orders.time_is_up:
            self._kill_child()
            raise CancelledError if orders.cancel else TimeIsUpError

    def _take_event(self, child: Child) -> None:
        event = child.next_event(_TICK)
        self._heed()
        if event is not None:
            self._heard = time.monotonic()
            self._handle(event)
        elif time.monotonic() - self._heard > self._settings.silence_seconds:
            raise SilentError(f"the child said nothing for {self._settings.silence_seconds:.0f} s while {self._phase}")
        self._flush_log()

    def _handle(self, event: dict[str, Any]) -> None:
        kind = event.pop("type")
        if kind == "progress":
            self._show_progress(event)
        elif kind == "state":
            self._files.store_state(event)
        elif kind == "log":
            self._lines.add(event["line"])
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
        self._persist(lambda: self._leases.add_event(self._claim, kind, event))
        if kind == "epoch":
            self._progress["epoch"] = event["epoch"]

    def _show_progress(self, event: dict[str, Any]) -> None:
        self._progress = event
        if time.monotonic() - self._progress_written > _PROGRESS_SECONDS:
            try:
                aside(lambda: self._leases.set_progress(self._claim, self._progress), self._heed)
            except AWAY as error:
                _log.warning("progress not written: %s", error)  # the next one will be
            self._progress_written = time.monotonic()

    def _flush_log(self, *, now: bool = False) -> None:
        text = self._lines.take(now=now)
        if text:
            write = self._conclude if now else self._persist
            write(lambda: self._leases.add_log(self._claim, text))

    def _end_badly(self, status: int) -> None:
        if status == EXIT_FAILED and self._failure is not None:
            failure, outputs = self._failure, self._files.store_outputs(self._outputs)
            if failure["code"] == "internal":
                self._log_stderr("failed")
            keep = failure["code"] == StorageFullError.code
            self._files.discard(
                self._persist(lambda: self._leases.fail(self._claim, failure, outputs, keep_state=keep))
            )
        elif status == -signal.SIGXCPU:
            self._end(lambda: self._leases.fail(self._claim, _TOO_SLOW, {}))
        elif status in (-signal.SIGKILL, EXIT_LOST) and oom.kills() > self._oom_kills:
            self._end(lambda: self._leases.fail(self._claim, _OUT_OF_MEMORY, {}))
        else:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._log_stderr(how)
            self._lose(f"the child {how} while {self._phase}")

    def _log_stderr(self, how: str) -> None:
        """It may hold paths and traces: for the operator, not for the API."""
        _log.error("the child %s; its stderr ends:\n%s", how, self._child.log_tail() if self._child else "")

    def _renewed(self, deadline: float) -> None:
        if self._child is not None:
            self._child.live_until(deadline)

    def _kill_child(self) -> None:
        if self._child is not None:
            self._child.kill()
