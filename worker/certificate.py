"""A job's certificate: an in-toto statement over what the supervisor hashed and what the engine reports of it.

Hashes of files, the spec and the job's number are the supervisor's own. Counts, verdict and versions are the engine's:
the signature says that this service ran it on these files and got them (docs/adr/0019-certificate.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from jobs.storage import Stored

NAME = "certificate.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "urn:temper:robustness-evaluation:1"
_COUNTS = ("correct", "total")
_OF_ATTACK = ("name", "params", "threat", "counted", "cumulative", "attacked", "fooled", *_COUNTS)


class OtherFileError(Exception):
    """What the engine says that it attacked is not what it left."""


def make_statement(
    job_id: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any] | None],
    outputs: Mapping[str, Stored],
    report: Mapping[str, Any],
) -> bytes:
    """The payload that is signed, as JSON.

    Args:
        spec: as the supervisor gave it to the engine.
        inputs: "checkpoint" and "data" with filename, sha256 and size; None: there was none.
        outputs: all that the engine left, hashed by the supervisor.
        report: the engine's.
    Raises: OtherFileError; LookupError, TypeError, ValueError or AttributeError for a report that is none.
    """
    hashes = {name: stored.sha256 for name, stored in sorted(outputs.items())}
    models = [(name, sha256) for name, sha256 in hashes.items() if name.startswith("checkpoint.")]
    shipped = report["output"]
    if shipped is not None:
        claimed = {name: sha256 for name, sha256 in shipped["files"].items() if hashes.get(name) != sha256}
        if claimed:
            raise OtherFileError(f"the child reports another {', '.join(claimed)} than it left")
    elif inputs["checkpoint"] is not None:
        models = [(inputs["checkpoint"]["filename"], inputs["checkpoint"]["sha256"])]
    spec_json = canonical(spec)
    predicate = {
        "job": job_id,
        "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "inputs": {name: dict(file) if file else None for name, file in inputs.items()},
        "outputs": hashes,
        # the format that came in; the other one holds the same tensors and is bound by its hash alone
        "evaluated": f"checkpoint.{shipped['format']}" if shipped is not None else None,
        "spec": spec,
        "spec_sha256": hashlib.sha256(spec_json).hexdigest(),
        "seed": spec["seed"],
        "suite": report["suite"],
        "threat": report["threat"],
        "images": report["images"],
        "before": _side(report["before"]),
        "after": _side(report["after"]) if report["after"] is not None else None,
        "verdict": {name: report["verdict"][name] for name in ("kind", "reasons")},
        "versions": {"service": version("temper"), "engine": report["environment"]},
    }
    subjects = models or [*hashes.items()]
    return canonical(
        {
            "_type": _STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects],
            "predicateType": _PREDICATE,
            "predicate": predicate,
        }
    )


def canonical(content: Any) -> bytes:
    """JSON with sorted keys and no blanks: the form of the spec that ``spec_sha256`` is of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clean": {name: side["clean"][name] for name in _COUNTS},
        "attacks": [{name: attack[name] for name in _OF_ATTACK} for attack in side["attacks"]],
        "robust": {name: side["robust"][name] for name in _COUNTS},
        "randomised": side["randomised"],
    }
