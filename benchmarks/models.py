"""The networks that are attacked: undefended and hardened by aft, on Fashion-MNIST and on CIFAR-10."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from core.models.base import Architecture, ImageShape
from core.models.fmnist_cnn import FMNISTCNN
from core.models.sequential import Sequential
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
    "evaluation": {"samples": 100, "diagnose": False},
}

_BLOCKS = [
    [{"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1, "bias": False}}, "batch_norm2d", "relu"]
    for channels in (32, 32, 64, 64, 96)
]
_POOL = [{"max_pool2d": {"kernel_size": 2}}]
CIFAR_LAYERS = [
    *_BLOCKS[0], *_BLOCKS[1], *_POOL, *_BLOCKS[2], *_BLOCKS[3], *_POOL, *_BLOCKS[4], *_POOL,
    "flatten", {"linear": {"out_features": 10}},
]  # fmt: skip
CIFAR_TRAIN = 8000


def prepare(folder: Path, spec: dict[str, object], checkpoint: Path, data: Path) -> tuple[JobSpec, Workdir]:
    """A work folder with these files, made by ingest."""
    folder.mkdir(parents=True, exist_ok=True)
    workdir = Workdir(folder)
    resolved = JobSpec.model_validate(spec)
    workdir.spec.write_text(resolved.model_dump_json())
    request = {
        name: {"path": str(path), "filename": path.name, "sha256": "", "size": 0}
        for name, path in (("checkpoint", checkpoint), ("data", data))
    }
    (folder / "ingest.json").write_text(json.dumps({**request, "datasets": [str(folder)]}))
    (folder / "state").mkdir(exist_ok=True)
    if ingest([str(folder)]) != 0:
        raise RuntimeError("the files were refused")
    return resolved, workdir


@dataclass(frozen=True)
class Subject:
    """A network under attack, with test images in [0, 1]."""

    name: str
    architecture: Architecture
    weights: Path
    x: Tensor
    y: Tensor
    eps: float

    def network(self) -> nn.Module:
        """The plain network, as a peer gets it."""
        net = self.architecture.build(10, ImageShape(*self.x.shape[1:]))
        net.load_state_dict(torch.load(self.weights, weights_only=True))
        return net.float().eval()


def fashion_mnist() -> list[Subject]:
    """The example, undefended and hardened (made once, about half a minute)."""
    with np.load(EXAMPLE / "data.npz") as data:
        x, y = torch.from_numpy(data["x_test"])[:, None] / 255, torch.from_numpy(data["y_test"]).long()
    checkpoint = EXAMPLE / "checkpoint.pt"
    hardened = _harden(CACHE / "fashion-mnist", SPEC, checkpoint, EXAMPLE / "data.npz")
    return [
        Subject("undefended Fashion-MNIST", FMNISTCNN(), checkpoint, x, y, 0.1),
        Subject("hardened Fashion-MNIST", FMNISTCNN(), hardened, x, y, 0.1),
    ]


def cifar10() -> list[Subject]:
    """A small network on CIFAR-10; empty unless TEMPER_BENCH_CIFAR10 names its npz (the arrays of DataSpec)."""
    source = os.environ.get("TEMPER_BENCH_CIFAR10")
    if source is None:
        print("TEMPER_BENCH_CIFAR10 is not set: CIFAR-10 is left out")
        return []
    with np.load(source) as data:
        part = {key: data[key][: CIFAR_TRAIN if key.endswith("train") else 1000] for key in data.files}
    CACHE.mkdir(parents=True, exist_ok=True)
    np.savez(CACHE / "cifar10.npz", **part)
    checkpoint = ROOT / "tests" / "data" / "cifar10" / "net.pt"
    spec = {
        **SPEC,
        "model": {"architecture": {"sequential": CIFAR_LAYERS}},
        "threat": {"eps": "8/255"},
        "training": {"epochs": 4, "batch_size": 64, "augment": ["flip"]},
    }
    hardened = _harden(CACHE / "cifar10", spec, checkpoint, CACHE / "cifar10.npz")
    x = torch.from_numpy(part["x_test"]).permute(0, 3, 1, 2).contiguous() / 255
    y = torch.from_numpy(part["y_test"]).long()
    architecture = Sequential.model_validate({"layers": CIFAR_LAYERS})
    return [
        Subject("undefended CIFAR-10", architecture, checkpoint, x, y, 8 / 255),
        Subject("hardened CIFAR-10", architecture, hardened, x, y, 8 / 255),
    ]


def _harden(folder: Path, spec: dict[str, object], checkpoint: Path, data: Path) -> Path:
    """Made once by the engine, and kept."""
    path = folder / "output" / "checkpoint.pt"
    if not path.exists():
        print(f"hardening {folder.name} for the benchmark ...", flush=True)
        run(*prepare(folder, spec, checkpoint, data), lambda _: None)
    return path


def pixels(x: Tensor) -> npt.NDArray[np.uint8]:
    """Images as the engine's prepared arrays hold them."""
    return (x * 255).round().to(torch.uint8).numpy()
