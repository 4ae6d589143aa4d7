"""Work folders with prepared inputs, made by the real ingest from real files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.prepared import Workdir
from core.spec import JobSpec
from ingest.__main__ import main as ingest


def source(path: Path) -> dict[str, Any]:
    """A file as the supervisor describes it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "filename": path.name, "sha256": digest, "size": path.stat().st_size}


def make_workdir(root: Path, spec: dict[str, Any], checkpoint: Path, data: Path) -> tuple[JobSpec, Workdir]:
    """Ingest both files into ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    resolved = JobSpec.model_validate(spec)
    workdir = Workdir(root)
    workdir.spec.write_text(resolved.model_dump_json())
    request = {"checkpoint": source(checkpoint), "data": source(data), "datasets": [str(root)]}
    (root / "ingest.json").write_text(json.dumps(request))
    assert ingest([str(root)]) == 0
    (root / "state").mkdir(exist_ok=True)
    return resolved, workdir


def small_data(path: Path, arrays: dict[str, np.ndarray], train: int = 400, test: int = 100) -> Path:
    """A part of the example's images as npz."""
    parts = {key: value[: train if key.endswith("train") else test] for key, value in arrays.items()}
    np.savez(path, **parts)
    return path


def save(path: Path, content: Any) -> Path:
    """torch.save."""
    torch.save(content, path)
    return path
