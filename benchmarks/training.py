"""Training throughput: ``pgd-at`` against a plain loop in one run, and what cheaper defenses save against their FB.

``python -m benchmarks.training CONTENDER`` measures the peak memory of "temper" or "plain" and prints megabytes.
The engine runs as a job runs it: its own loop, batches, seeds and bookkeeping, but for validation.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models import CIFAR_LAYERS, EXAMPLE, pixels, prepare
from core.models.base import ImageShape
from core.models.fmnist_cnn import FMNISTCNN
from core.models.sequential import Sequential
from core.run import _Run
from core.spec import JobSpec

IMAGES, BATCH, STEPS, ROUNDS = 1280, 128, 10, 5
DEFENSES: dict[str, tuple[dict[str, Any], int]] = {
    "pgd-at": ({"name": "pgd-at", "attack": {"name": "pgd", "steps": STEPS}}, 1),
    "fast-at": ({"name": "fast-at"}, 1),
    "free-at": ({"name": "free-at", "replays": 8}, 8),
    "yopo": ({"name": "yopo", "full_passes": 5, "layer_steps": 3}, 1),
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def subjects() -> list[tuple[str, dict[str, Any], nn.Module, Tensor, Tensor, float]]:
    """The small networks of the benchmarks with real or random images; larger ones on a GPU."""
    with np.load(EXAMPLE / "data.npz") as data:
        x = torch.from_numpy(data["x_train"][:IMAGES])[:, None] / 255
        y = torch.from_numpy(data["y_train"][:IMAGES]).long()
    noise = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    grey, colour = ImageShape(1, 28, 28), ImageShape(3, 32, 32)
    layers = Sequential.model_validate({"layers": CIFAR_LAYERS})
    found = [
        ("fmnist-cnn", {"architecture": "fmnist-cnn"}, FMNISTCNN().build(10, grey), x, y, 0.1),
        (
            "5 convolutions, 32 px",
            {"architecture": {"sequential": CIFAR_LAYERS}},
            layers.build(10, colour),
            noise,
            y,
            8 / 255,
        ),
    ]
    if DEVICE.type == "cuda":
        from core.models.resnet_cifar import ResNetCIFAR

        net = ResNetCIFAR(name="resnet18-cifar").build(10, colour)
        found.append(("resnet18-cifar", {"architecture": "resnet18-cifar"}, net, noise, y, 8 / 255))
    return found


def engine(
    model: dict[str, Any], net: nn.Module, x: Tensor, y: Tensor, eps: float, defense: str
) -> Callable[[], float]:
    """Seconds that one epoch of the engine's loop takes."""
    content, epochs = DEFENSES[defense]

    def seconds() -> float:
        with tempfile.TemporaryDirectory() as folder:
            job = _Run(*_prepared(Path(folder), model, net, x, y, eps, content, epochs), lambda _: None, lambda: False)
            return job.train(job.load()).state.curves[0]["seconds"]

    return seconds


def _prepared(
    folder: Path,
    model: dict[str, Any],
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    defense: dict[str, Any],
    epochs: int,
) -> tuple[JobSpec, Any]:
    images = pixels(x).squeeze(1) if x.shape[1] == 1 else pixels(x).transpose(0, 2, 3, 1)
    np.savez(folder / "data.npz", x_train=images, y_train=y.numpy(), x_test=images[:50], y_test=y[:50].numpy())
    torch.save(net.state_dict(), folder / "net.pt")
    spec = {
        "model": {**model, "num_classes": 10},
        "defense": defense,
        "threat": {"eps": eps},
        "training": {
            "epochs": epochs,
            "batch_size": BATCH,
            "held_out": 1,
            "augment": [],
            "optimizer": {"name": "sgd", "lr": 0.01},
        },
        "evaluation": {"samples": 50, "diagnose": False},
    }
    return prepare(folder / "work", spec, folder / "net.pt", folder / "data.npz")


def plain(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Callable[[], float]:
    """Seconds of one epoch of PGD adversarial training as reference repositories write it."""
    net = net.to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def seconds() -> float:
        started = time.perf_counter()
        net.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            images, labels = x[rows].to(DEVICE), y[rows].to(DEVICE)
            delta = torch.empty_like(images).uniform_(-eps, eps)
            for _ in range(STEPS):
                delta.requires_grad_(True)
                loss = F.cross_entropy(net((images + delta).clamp(0, 1)), labels)
                loss.backward()
                assert delta.grad is not None
                delta = (delta.detach() + eps / 4 * delta.grad.sign()).clamp(-eps, eps)
            optimizer.zero_grad()
            F.cross_entropy(net((images + delta).clamp(0, 1)), labels).backward()
            optimizer.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return seconds


def main() -> None:
    """One table a network."""
    for name, model, net, x, y, eps in subjects():
        contenders = {"plain": plain(net, x, y, eps)}
        contenders |= {defense: engine(model, net, x, y, eps, defense) for defense in DEFENSES}
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(ROUNDS):
            for key, seconds in contenders.items():
                times[key].append(seconds())
        median = {key: statistics.median(values) for key, values in times.items()}
        print(f"\n{name} on {DEVICE}, {IMAGES} images in batches of {BATCH}, K = {STEPS}, median of {ROUNDS} rounds")
        rate = IMAGES / median["pgd-at"]
        print(f"  plain loop {IMAGES / median['plain']:8.0f} images/s")
        print(f"  pgd-at     {rate:8.0f} images/s: {median['plain'] / median['pgd-at']:.2f}x the plain loop")
        for key, fb in (("fast-at", 2), ("free-at", 8), ("yopo", 5)):
            faster, plainly = median["pgd-at"] / median[key], median["plain"] / median[key]
            by_fb = f"by FB {(STEPS + 1) / fb:.2f}x"
            print(
                f"  {key:8} {faster:.2f}x as fast an epoch as pgd-at, {plainly:.2f}x as the plain loop; {by_fb}",
                flush=True,
            )
    print("\npeak memory over the idle process, one epoch of fmnist-cnn")
    for contender in ("plain", "temper"):
        command = [sys.executable, "-m", "benchmarks.training", contender]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  {contender:8}{float(answer.stdout.split()[-1]):.0f} MB", flush=True)


def added(contender: str) -> float:
    """Megabytes by which the peak grows in training over that of loading everything and one step."""
    _, model, net, x, y, eps = subjects()[0]
    with tempfile.TemporaryDirectory() as folder:
        content, epochs = DEFENSES["pgd-at"]
        job = _Run(*_prepared(Path(folder), model, net, x, y, eps, content, epochs), lambda _: None, lambda: False)
        loaded = job.load()
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        if contender == "plain":
            plain(net, x, y, eps)()
        else:
            job.train(loaded)
        return _status("VmHWM") - before


def _status(field: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(added(sys.argv[1]))
