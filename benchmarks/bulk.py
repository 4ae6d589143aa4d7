"""Bulk: data of 10 GB and checkpoints of 2 GB through ingest in the sandbox; the memory of all its processes meanwhile.

``python -m benchmarks bulk``; TEMPER_BENCH_BULK_MB for another size of the data. It needs three times that on the disk.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from worker.child import environment
from worker.sandbox.rules import ingest_rules

MEGABYTES = int(os.environ.get("TEMPER_BENCH_BULK_MB", "10240"))
CHECKPOINT_MEGABYTES = min(2048, MEGABYTES)
MEMORY = 1 << 30  # what a process of ingest may have
SIDE, CLASSES = 224, 10
PIXELS = SIDE * SIDE * 3
_DATA = {"format": None, "resize": None, "crop": None, "interpolation": "bilinear"}


def images() -> Iterator[np.ndarray]:
    """As many as make the megabytes, no two equal, that do not compress."""
    block = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), np.uint8)
    for n in range(MEGABYTES * 2**20 // PIXELS):
        yield np.roll(block[n % 64], n // 64, axis=0)


def npz(path: Path) -> None:
    """One array."""
    count = MEGABYTES * 2**20 // PIXELS
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)}
            np.lib.format.write_array_header_1_0(member, header)
            for image in images():
                member.write(image.tobytes())
        with archive.open("y.npy", "w") as member:
            np.save(member, np.arange(count) % CLASSES)


def pngs() -> Iterator[tuple[str, bytes]]:
    """Names of an image folder, and files as large as their pixels."""
    for n, image in enumerate(images()):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=0)
        yield f"{n % CLASSES}/{n}.png", file.getvalue()


def zipped(path: Path) -> None:
    """An image folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in pngs():
            archive.writestr(name, content)


def tarred(path: Path) -> None:
    """An image folder."""
    with tarfile.open(path, "w") as archive:
        for name, content in pngs():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def tensors() -> dict[str, torch.Tensor]:
    """Eight of one size."""
    return {f"layer{n}.weight": torch.randn(CHECKPOINT_MEGABYTES * 2**20 // 32, 1) for n in range(8)}


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "npz": ("data.npz", npz),
    "zip of PNGs": ("data.zip", zipped),
    "tar of PNGs": ("data.tar", tarred),
    "safetensors": ("checkpoint.safetensors", lambda path: save_file(tensors(), path)),
    "torch's zip": ("checkpoint.pt", lambda path: torch.save(tensors(), path)),
}


def family(pid: int) -> Iterator[int]:
    """A process and those it started."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return
    for child in children:
        yield from family(int(child))


def held(pid: int) -> float:
    """Megabytes that one process cannot give back: what it maps of files is the kernel's to drop."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # one that has ended and was not waited for has no such lines
    return sum(int(kilobytes) for kilobytes in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.M)) / 1024


def ingest(folder: Path, path: Path) -> tuple[float, float]:
    """Seconds, and the most megabytes that its processes held at one time."""
    for name in ("input", "home"):
        (folder / name).mkdir()
    upload = {"path": str(path), "filename": path.name, "sha256": "", "size": path.stat().st_size}
    of_data = path.stem == "data"
    tiny = folder / "tiny.npz"
    np.savez(
        tiny, x=np.arange(20 * 48, dtype=np.uint8).reshape(20, 4, 4, 3).repeat(8, 1).repeat(8, 2), y=np.arange(20) % 2
    )
    data = upload if of_data else {"path": str(tiny), "filename": tiny.name, "sha256": "", "size": tiny.stat().st_size}
    request = {"checkpoint": None if of_data else upload, "data": data, "datasets": []}
    (folder / "ingest.json").write_text(json.dumps(request))
    (folder / "spec.json").write_text(json.dumps({"data": _DATA}))
    rules = ingest_rules(folder, folder / "home", [path, tiny], [], MEMORY)
    python = [sys.executable, "-m"]
    command = [*python, "worker.leash", str(os.getpid()), "-", rules.to_json(), *python, "ingest", str(folder)]
    began, most = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(folder / "home"), text=True) as process:
        while process.poll() is None:
            most = max(most, sum(map(held, family(process.pid))))
            time.sleep(0.02)
        took = time.perf_counter() - began
        said = process.stdout.read() if process.stdout else ""
        assert process.returncode == 0, said
    return took, most


def main() -> None:
    """A line for each kind."""
    print(f"\nbulk: ingest in the sandbox, {MEMORY >> 20} MB of memory allowed")
    for kind, (name, make) in KINDS.items():
        folder = Path(tempfile.mkdtemp())
        try:
            path = folder / name
            make(path)
            size = path.stat().st_size / 2**20
            took, most = ingest(folder, path)
            print(f"  {kind:12} {size:8,.0f} MB: {most:4.0f} MB held, {took:.0f} s, {size / took:.0f} MB/s", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
