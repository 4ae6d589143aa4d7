"""Ingest: 60,000 PNGs from a zip against a plain loop of Pillow on one core; arrays against a plain copy with hashing.

Rounds of all contenders, one after the other, and the median of their ratios: a busy machine is busy for all. Each runs
in a process of its own: ``python -m benchmarks.ingest CONTENDER FOLDER`` prints its seconds by the clock, and those of
all processors.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.models import EXAMPLE
from ingest.data import prepare_data

COUNT, ROUNDS = 60_000, 5
OPTIONS = {"format": None, "resize": None, "crop": None, "interpolation": "bilinear"}
PNGS, ARRAYS = "pngs.zip", "data.npz"
_BLOCK = 1 << 20


def write_pngs(path: Path, count: int = COUNT) -> None:
    """A zipped image folder like Fashion-MNIST's, made from the example's images."""
    with np.load(EXAMPLE / "data.npz") as data:
        x, y = data["x_train"], data["y_train"]
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(count):
            file = io.BytesIO()
            # moved a little, so that no two are equal
            Image.fromarray(np.roll(x[n % len(x)], n // len(x), axis=0)).save(file, "PNG")
            split = "test" if n % 6 == 0 else "train"
            archive.writestr(f"{split}/{y[n % len(x)]}/{n}.png", file.getvalue())


def decode(folder: Path) -> Callable[[], None]:
    """One core, bytes in memory to pixels."""
    with zipfile.ZipFile(folder / PNGS) as archive:
        pngs = [archive.read(name) for name in archive.namelist()]

    def work() -> None:
        for content in pngs:
            np.asarray(Image.open(io.BytesIO(content)))

    return work


def decode_zip(folder: Path) -> Callable[[], None]:
    """One core, a zip to pixels."""

    def work() -> None:
        with zipfile.ZipFile(folder / PNGS) as archive:
            for name in archive.namelist():
                np.asarray(Image.open(io.BytesIO(archive.read(name))))

    return work


def copy(folder: Path) -> Callable[[], None]:
    """A plain copy with hashing."""

    def work() -> None:
        whole = hashlib.sha256()
        with (folder / ARRAYS).open("rb") as source, (folder / "copy").open("wb") as out:
            while block := source.read(_BLOCK):
                whole.update(block)
                out.write(block)

    return work


def ingest(folder: Path, name: str) -> Callable[[], None]:
    """What a job's ingest does with its data."""
    target = folder / "out"
    target.mkdir(exist_ok=True)
    return lambda: prepare_data({"filename": name, "sha256": "", "size": 0}, folder / name, target, OPTIONS)


CONTENDERS: dict[str, Callable[[Path], Callable[[], None]]] = {
    "ingest, PNGs in a zip": lambda folder: ingest(folder, PNGS),
    "Pillow, one core, from the zip": decode_zip,
    "Pillow, one core, from memory": decode,
    "ingest, npz": lambda folder: ingest(folder, ARRAYS),
    "a copy with SHA-256": copy,
}


def measure(contender: str, folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of all processors."""
    work = CONTENDERS[contender](folder)
    began, before = time.perf_counter(), _spent()
    work()
    return time.perf_counter() - began, _spent() - before


def _spent() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def compare(title: str, contenders: list[str], folder: Path, amount: float, unit: str) -> None:
    """Median speed of each, and the first one's against the others'."""
    rounds = []
    for _ in range(ROUNDS):
        times = {}
        for name in contenders:
            command = [sys.executable, "-m", "benchmarks.ingest", name, folder]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            times[name] = (float(answer[0]), float(answer[1]))
        rounds.append(times)
    print(f"\n{title}")
    for name in contenders:
        clock, processors = (statistics.median(times[name][kind] for times in rounds) for kind in (0, 1))
        ratio = statistics.median(times[name][0] / times[contenders[0]][0] for times in rounds)
        against = "" if name == contenders[0] else f"; ingest is {ratio:.2f} times as fast"
        print(f"  {name:32} {amount / clock:8,.0f} {unit}/s, {processors:5.2f} s of processors{against}", flush=True)


def main() -> None:
    """Two tables."""
    names = list(CONTENDERS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pngs(folder / PNGS)
        cores = len(os.sched_getaffinity(0))
        compare(f"{COUNT:,} PNGs of 28x28 in a zip, {cores} cores", names[:3], folder, COUNT, "images")
        rng, count = np.random.default_rng(0), 150_000
        x, y = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10
        cut = count * 5 // 6
        np.savez(folder / ARRAYS, x_train=x[:cut], y_train=y[:cut], x_test=x[cut:], y_test=y[cut:])
        size = (folder / ARRAYS).stat().st_size / 1e6
        compare(f"npz of {count:,} images of 32x32 in colour", names[3:], folder, size, "MB")


if __name__ == "__main__":
    print(*measure(sys.argv[1], Path(sys.argv[2])))
