"""The files of an attempt: its work folder filled from the store, states and outputs stored under keys of their own."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import IrregularFileError, StorageCorruptError, StorageError
from jobs.leases import Claim, LeaseRepository
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository
from jobs.storage import Storage, Stored
from jobs.tables import Job
from worker import certificate
from worker.persistence import T, aside, persist, transfer
from worker.sandbox.rules import Rules, engine_rules, ingest_rules

FOLDERS = ("input", "state", "output", "ranks", "home-ingest", "home-core")
_DISCARD_SECONDS = 3.0
_REPORT_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_log = logging.getLogger(__name__)


class StrayFileError(Exception):
    """A child named a file that is none of its own, or left one that cannot be."""


class AttemptFiles:
    """What goes between one attempt's ``folder`` and the store; ``heed`` is asked all the while and may raise."""

    def __init__(
        self,
        claim: Claim,
        folder: Path,
        leases: LeaseRepository,
        storage: Storage,
        settings: Settings,
        *,
        heed: Callable[[], None],
    ) -> None:
        self._claim, self._folder = claim, folder
        self._leases, self._storage, self._settings = leases, storage, settings
        self._heed = heed
        self.damaged: list[str] = []  # states that could not be used
        self._inputs: dict[str, dict[str, Any] | None] = {}
        self._numbers = itertools.count(1)

    def prepare(self) -> Job:
        """Fill the work folder: spec, uploads, and the state of earlier attempts; and all folders that children use."""
        for name in FOLDERS:
            (self._folder / name).mkdir()
        job = self._persist(lambda: self._leases.job(self._claim))
        (self._folder / "spec.json").write_text(json.dumps(job.spec))
        files = {
            "checkpoint": self._fetch_upload(job.checkpoint_upload, "checkpoint") if job.checkpoint_upload else None,
            "data": self._fetch_upload(job.data_upload, "data") if job.data_upload else self._dataset(job),
        }
        self._inputs = {name: _without_path(file) for name, file in files.items()}
        request = {**files, "datasets": [str(folder) for folder in self._settings.dataset_folders]}
        (self._folder / "ingest.json").write_text(json.dumps(request))
        states = self._persist(lambda: self._leases.states(self._claim))
        # the oldest first: of several, the engine takes the file that came last
        for name, artifact in sorted(states.items(), key=lambda item: item[1].created_at):
            if not _plain(name):
                continue
            try:
                self._fetch([artifact.key], artifact.sha256, self._folder / "state" / name)
            except StorageCorruptError as error:
                _log.warning("%s; what it held is done again", error)
                self.damaged.append(name)
        return job

    def _fetch_upload(self, upload_id: str, name: str) -> dict[str, Any]:
        upload = self._persist(lambda: self._leases.upload(upload_id))
        path = self._folder / name
        keys = self._persist(lambda: self._leases.upload_keys(upload))
        self._fetch(keys, str(upload.sha256), path)
        return {"path": str(path), "filename": upload.filename, "sha256": upload.sha256, "size": upload.size}

    def _dataset(self, job: Job) -> dict[str, Any] | None:
        """A named one, hashed here: what is signed is no child's word. None if it cannot be: ingest tells why."""
        name, folders = job.spec.get("data", {}).get("dataset"), self._settings.dataset_folders
        if not name:
            return None
        from ingest.datasets import find_dataset  # few jobs need it
        from ingest.errors import DatasetMissingError

        try:
            return aside(lambda: find_dataset(name, folders), self._heed)
        except (DatasetMissingError, OSError):
            return None

    def _fetch(self, keys: Sequence[str], sha256: str, target: Path) -> None:
        self._transfer(lambda: self._storage.fetch(keys, sha256, target))

    def ingest_rules(self, job: Job) -> Rules:
        """What the sandbox allows to ingest."""
        uploads = {"checkpoint": job.checkpoint_upload, "data": job.data_upload}
        read = [self._folder / name for name, upload in uploads.items() if upload]
        if not job.data_upload:
            read += [folder for folder in self._settings.dataset_folders if folder.exists()]
        home, hidden = self._folder / "home-ingest", self._settings.folders
        return ingest_rules(self._folder, home, read, hidden, self._settings.ingest_memory_bytes)

    def engine_rules(self, job: Job) -> Rules:
        """And to the engine; of the spec, which is core's, it depends on this alone."""
        devices, from_scratch = int(job.spec.get("devices") or 1), job.checkpoint_upload is None
        home, hidden = self._folder / "home-core", self._settings.folders
        return engine_rules(self._folder, home, hidden, devices=devices, from_scratch=from_scratch)

    def store_state(self, event: dict[str, Any]) -> None:
        """Store under a key of its own, move the pointer, then drop the file that it replaced."""
        path, slot = self._written("state", event["file"]), event["slot"]
        if not _plain(slot):  # what the next attempt finds it by, in its folder
            raise StrayFileError(f"the child named {slot!r}, which is no name of a state")
        epoch, step = event["epoch"], event["step"]
        # numbered: a place may be told twice with other bytes, and a stored file is never overwritten
        key = f"jobs/{self._claim.job_id}/state/{self._claim.attempt}-{next(self._numbers)}-{slot}"
        try:
            stored = self._put(key, path)
        except FileNotFoundError:
            return  # the child is two saves ahead: the newer ones follow
        replaced = self._persist(lambda: self._leases.add_state(self._claim, slot, stored, epoch=epoch, step=step))
        if replaced is not None and replaced.key != key:
            self.discard([replaced])

    def report(self) -> Any:
        """What the engine reports."""
        path = self._written("output", "report.json")
        if path.stat().st_size > _REPORT_BYTES:
            raise StrayFileError("the child left a report of an impossible size")
        return json.loads(path.read_text())

    def store_outputs(self, names: Iterable[str]) -> dict[str, Stored]:
        """Only right before the rows that make them exist."""
        prefix = f"jobs/{self._claim.job_id}/{self._claim.attempt}"
        return {name: self._put(f"{prefix}/{name}", self._written("output", name)) for name in names}

    def store_certificate(
        self, report: Any, spec: dict[str, Any], outputs: dict[str, Stored], signer: Signer, keys: SigningKeyRepository
    ) -> dict[str, Stored]:
        """Sign for what was stored; the public key is there to be read before it. When the child is dead."""
        if certificate.NAME in outputs:
            raise StrayFileError(f"the child named {certificate.NAME!r}, which only its supervisor writes")
        try:
            payload = certificate.make_statement(self._claim.job_id, spec, self._inputs, outputs, report)
        except certificate.OtherFileError as error:
            raise StrayFileError(str(error)) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StrayFileError(f"the child left a report that is none ({error!r})") from error
        self._persist(lambda: keys.publish(signer))
        path = self._folder / certificate.NAME
        path.write_bytes(signer.envelope(payload, certificate.PAYLOAD_TYPE))
        key = f"jobs/{self._claim.job_id}/{self._claim.attempt}/{certificate.NAME}"
        return {certificate.NAME: self._put(key, path)}

    def _written(self, folder: str, name: str) -> Path:
        """A file of the child's, which is not believed: it may not have this process read what it cannot itself."""
        if not _plain(name) or (self._folder / folder / name).is_symlink():
            raise StrayFileError(f"the child named {name!r}, which is no file of its folder {folder}")
        return self._folder / folder / name

    def _put(self, key: str, path: Path) -> Stored:
        try:
            return self._transfer(lambda: self._storage.put(key, path))
        except IrregularFileError as error:  # it was exchanged after it was looked at
            raise StrayFileError(f"the child named {path.name!r}, which is no file") from error

    def discard(self, files: list[Stored]) -> None:
        """Nothing refers to them any more; what cannot be removed within seconds is swept later."""
        ends = time.monotonic() + _DISCARD_SECONDS

        def heed() -> None:
            if time.monotonic() > ends:
                raise StorageError(f"the store took more than {_DISCARD_SECONDS:.0f} s")

        try:
            aside(lambda: self._storage.delete([stored.key for stored in files]), heed)
        except StorageError as error:
            _log.warning("not removed: %s", error)

    def _persist(self, work: Callable[[], T]) -> T:
        return persist(work, self._heed)

    def _transfer(self, copy: Callable[[], T]) -> T:
        return transfer(copy, self._heed, self._settings.silence_seconds)


def _plain(name: object) -> bool:
    """Whether it names something directly in a folder."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _without_path(file: dict[str, Any] | None) -> dict[str, Any] | None:
    return {key: file[key] for key in ("filename", "sha256", "size")} if file else None
