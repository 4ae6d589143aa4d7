"""The two networks that are attacked: the example's, and the same one hardened by aft."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.models.base import ImageShape
from core.models.fmnist_cnn import FMNISTCNN
from core.prepared import Workdir
from core.run import run
from core.spec import JobSpec
from ingest.__main__ import main as ingest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
CACHE = ROOT / "temper-data" / "bench"
SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 5},
    "threat": {"eps": 0.1},
    "training": {"epochs": 3, "batch_size": 64},
}


def prepare(folder: Path, spec: dict[str, object]) -> tuple[JobSpec, Workdir]:
    """A work folder with the example's files, made by ingest."""
    folder.mkdir(parents=True, exist_ok=True)
    workdir = Workdir(folder)
    resolved = JobSpec.model_validate(spec)
    workdir.spec.write_text(resolved.model_dump_json())
    request = {
        name: {"path": str(EXAMPLE / file), "filename": file, "sha256": "", "size": 0}
        for name, file in (("checkpoint", "checkpoint.pt"), ("data", "data.npz"))
    }
    (folder / "ingest.json").write_text(json.dumps({**request, "datasets_dir": str(folder)}))
    (folder / "state").mkdir(exist_ok=True)
    if ingest([str(folder)]) != 0:
        raise RuntimeError("the example was refused")
    return resolved, workdir


def hardened_checkpoint() -> Path:
    """Made once by the engine, about half a minute."""
    path = CACHE / "output" / "checkpoint.pt"
    if not path.exists():
        print("hardening the example for the benchmark ...", flush=True)
        run(*prepare(CACHE, SPEC), lambda _: None)
    return path


def network(checkpoint: Path) -> nn.Module:
    """The plain network, as a peer gets it."""
    net = FMNISTCNN().build(10, ImageShape(1, 28, 28))
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    return net.eval()


def images(count: int) -> tuple[Tensor, Tensor]:
    """Test images in [0, 1] and labels."""
    with np.load(EXAMPLE / "data.npz") as data:
        x, y = data["x_test"][:count], data["y_test"][:count]
    return torch.from_numpy(x)[:, None] / 255, torch.from_numpy(y).long()
