"""A finished run with its certificate, as the service leaves them, without the service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.prepared import Workdir
from core.report import Report
from core.run import run
from jobs.signing import Signer, new_signing_key
from jobs.storage import Storage
from tests.core.workdirs import make_workdir
from worker.certificate import PAYLOAD_TYPE, make_statement


@dataclass(frozen=True)
class Certified:
    """What a user has of a job: ``folder`` holds its artifacts."""

    folder: Path
    checkpoint: Path
    data: Path
    workdir: Workdir
    report: Report
    signer: Signer

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.json"


def certify(root: Path, spec: dict[str, Any], checkpoint: Path, data: Path) -> Certified:
    """Run a job by the engine alone and sign for it as the supervisor does."""
    resolved, workdir = make_workdir(root / "run", spec, checkpoint, data)
    report = run(resolved, workdir, lambda _: None)
    request = json.loads((root / "run" / "ingest.json").read_text())
    inputs = {
        name: {key: request[name][key] for key in ("filename", "sha256", "size")} for name in ("checkpoint", "data")
    }
    storage = Storage((root / "store").as_uri())
    outputs = {path.name: storage.put(path.name, path) for path in workdir.output.iterdir()}
    said = report.model_dump(mode="json")
    payload = make_statement("job_1", resolved.model_dump(mode="json"), inputs, outputs, said)
    signer = Signer.parse(new_signing_key())
    certified = Certified(workdir.output, checkpoint, data, workdir, report, signer)
    certified.certificate.write_bytes(signer.envelope(payload, PAYLOAD_TYPE))
    return certified
