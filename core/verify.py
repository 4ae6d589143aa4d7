"""python -m core verify: runs a sample of a certificate's attacks again, offline, and says whether they agree.

Exit status: 0 they agree, 1 they do not, 2 they could not be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.certificate import Certificate, CertificateError, SideName, read_certificate
from core.data import some
from core.errors import RunError
from core.evaluate import evaluate
from core.export import file_sha256, load_exported
from core.inputs import Inputs, load_inputs
from core.models.classifier import Classifier
from core.per_image import NAME as PER_IMAGE
from core.prepared import Workdir
from core.spec import JobSpec
from core.verify_compare import compare_counts, compare_images, compare_totals, outcomes_here, outcomes_there

AGREES, DIFFERS, UNUSABLE = 0, 1, 2
_TOLERANCE = 0.02


def main(arguments: Sequence[str]) -> int:
    """Compare and tell; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="temper-verify-") as folder:
            return _verify(options, Path(folder))
    except RunError as error:
        sys.stderr.write(f"{error.detail}{f' ({error.hint})' if error.hint else ''}\n")
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m core verify", description=__doc__)
    parser.add_argument("certificate", type=Path, help="certificate.json of the job")
    parser.add_argument("what", type=Path, help="a checkpoint that it names, or the work folder of python -m core run")
    parser.add_argument("data", type=Path, nargs="?", help="the job's data, with a checkpoint")
    parser.add_argument("--sample", type=_positive, default=100, help="images to attack again (100)")
    parser.add_argument("--seed", type=int, default=0, help="draws another sample")
    parser.add_argument(
        "--results", type=Path, help=f"per-image results ({PER_IMAGE} beside the certificate, if there)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=_TOLERANCE, help="share of images that may differ, one at least (0.02)"
    )
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _verify(options: argparse.Namespace, scratch: Path) -> int:
    torch.backends.cudnn.allow_tf32 = False  # as the run had it
    certificate = read_certificate(options.certificate)
    inputs, model, name = _load(certificate, options.what, options.data, scratch)
    side = certificate.side(name)
    if inputs.images.ids_sha256() != certificate.images.ids_sha256:
        raise CertificateError("the certificate is of other test images", "is this the data of that job?")
    rows = np.sort(some(inputs.images, options.sample, options.seed))
    chosen = inputs.images.choose(rows)
    suite, bench = side.suite(), replace(inputs.bench, images=chosen)
    entries = suite.entries
    headline = max((entry.threat for entry in entries), key=lambda threat: threat.eps)
    _say("The signature is not checked here, only what it would be of: temper verify CERTIFICATE CHECKPOINT does that.")
    _say(f"{options.what.name} is the {name} side of {certificate.job}; {len(chosen)} of {len(inputs.images)} images")
    ledger = evaluate(model, bench, suite)
    here = outcomes_here(ledger, bench, entries, headline, cascade=suite.cascade)
    results = _results(options, certificate)
    if results is not None:
        allowed = max(1, math.floor(options.tolerance * len(chosen)))
        there = outcomes_there(results, name, inputs.images.ids, entries, headline, cascade=suite.cascade)
        lines = compare_images(here, there.choose(rows), entries, allowed)
        lines.append(compare_totals(there, side, entries, results.name))
        rule = f"image by image with {results.name}; at most {allowed} may differ for each attack"
    else:
        lines = compare_counts(here, side, entries, options.tolerance)
        rule = (
            f"by counts, which shows less than {PER_IMAGE} would: they disagree if the sample were less likely than "
            f"1 in 1000 with {options.tolerance:.1%} of all images allowed for"
        )
    for line in lines:
        _say(f"{'agrees   ' if line.agrees else 'DISAGREES'}  {line.name}: {line.sentence}")
    _say(f"Compared {rule}. Devices and versions round differently, and some images lie on the edge.")
    if side.randomised:
        _say("The model is randomised: its outcomes differ from run to run.")
    return AGREES if all(line.agrees for line in lines) else DIFFERS


def _load(
    certificate: Certificate, what: Path, data: Path | None, scratch: Path
) -> tuple[Inputs, Classifier, SideName]:
    """The model, the images that it was attacked on, and which of the two models it is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = _evaluating(certificate.spec)
    if what.is_dir() and data is None:
        workdir = Workdir(what)
        _check_sources(certificate, workdir)
        inputs = load_inputs(spec, workdir, device)
        if certificate.after is None:
            return inputs, inputs.uploaded(workdir), "before"
        certificate.side_of(file_sha256(workdir.checkpoint(inputs.manifest.format)))
        model = inputs.build()
        load_exported(workdir, inputs.match, inputs.manifest, model.net)
        return inputs, model, "after"
    if data is None or not what.is_file():
        raise CertificateError("give a work folder, or a checkpoint and its data")
    name = certificate.side_of(file_sha256(what))
    if data.is_file():  # before anything reads it that a stranger's file could trick
        _check_data(certificate, file_sha256(data))
    workdir = Workdir(scratch)
    _ingest(spec, workdir, what, data)
    _check_data(certificate, workdir.data_manifest().source.sha256)
    inputs = load_inputs(spec, workdir, device)
    return inputs, inputs.uploaded(workdir), name


def _evaluating(spec: JobSpec) -> JobSpec:
    """The same evaluation, without training: its images and its seed."""
    content = {**spec.model_dump(mode="json", exclude={"training"}), "defense": "none"}
    content["model"]["weights"] = "uploaded"
    return JobSpec.model_validate(content)


def _check_sources(certificate: Certificate, workdir: Workdir) -> None:
    _check_data(certificate, workdir.data_manifest().source.sha256)
    uploaded = certificate.inputs["checkpoint"]
    if uploaded is not None and workdir.checkpoint_manifest().source.sha256 != uploaded.sha256:
        raise CertificateError("the work folder was made from another checkpoint than the certificate names")


def _check_data(certificate: Certificate, sha256: str) -> None:
    data = certificate.inputs["data"]
    if data is None or sha256 != data.sha256:
        bound = data.sha256 if data else "none"
        raise CertificateError(f"the data have SHA-256 {sha256}, the certificate binds {bound}", "give the job's data")


def _ingest(spec: JobSpec, workdir: Workdir, checkpoint: Path, data: Path) -> None:
    """Prepare raw files as the service does: by ingest, which is no part of the engine and runs by itself."""
    content = spec.model_dump(mode="json")
    content["data"]["dataset"] = data.name
    workdir.spec.write_text(json.dumps(content))
    request = {
        "checkpoint": _described(checkpoint),
        # a folder of images is named, like a dataset of the operator's
        "data": _described(data) if data.is_file() else None,
        "datasets": [str(data.resolve().parent)],
    }
    (workdir.root / "ingest.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "ingest", str(workdir.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _refused(done)


def _refused(done: subprocess.CompletedProcess[str]) -> CertificateError:
    for line in reversed(done.stdout.splitlines()):
        said = json.loads(line)
        if said.get("type") == "failure":
            return CertificateError(said["detail"], said["hint"])
    tail = done.stderr.strip().splitlines()
    return CertificateError(f"the files could not be prepared: {tail[-1] if tail else done.returncode}")


def _described(path: Path) -> dict[str, Any]:
    resolved = path.resolve()
    return {
        "path": str(resolved),
        "filename": path.name,
        "sha256": file_sha256(resolved),
        "size": resolved.stat().st_size,
    }


def _results(options: argparse.Namespace, certificate: Certificate) -> Path | None:
    """The job's per-image results, if they are at hand: those that the certificate binds, and no others."""
    beside = [options.certificate.parent / PER_IMAGE, options.what / "output" / PER_IMAGE]
    path: Path | None = options.results or next((each for each in beside if each.is_file()), None)
    if path is not None and file_sha256(path) != certificate.outputs.get(PER_IMAGE):
        raise CertificateError(f"{path} is not the {PER_IMAGE} that the certificate binds", "download it again")
    return path


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
