"""Ingest: 60,000 PNGs from a zip against a plain loop of Pillow on one core; arrays against a plain copy with hashing.

Rounds of all contenders, one after the other, and the median of their ratios: a busy machine is busy for all. Each runs
in a process of its own, ingest in the sandbox: ``python -m benchmarks.ingest CONTENDER FOLDER`` prints its seconds.
"""

from __future__ import annotations

import hashlib
import io
import os
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
from worker.child import environment
from worker.sandbox.rules import ingest_rules

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
    target = folder / "input"
    return lambda: prepare_data({"filename": name, "sha256": "", "size": 0}, folder / name, target, OPTIONS)


CONTENDERS: dict[str, Callable[[Path], Callable[[], None]]] = {
    "ingest, PNGs in a zip": lambda folder: ingest(folder, PNGS),
    "Pillow, one core, from the zip": decode_zip,
    "Pillow, one core, from memory": decode,
    "ingest, npz": lambda folder: ingest(folder, ARRAYS),
    "a copy with SHA-256": copy,
}


def measure(contender: str, folder: Path) -> float:
    """Seconds."""
    work = CONTENDERS[contender](folder)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def timed(contender: str, folder: Path) -> float:
    """In a process of its own, held in as a job's."""
    command = [sys.executable, "-m", "benchmarks.ingest", contender, str(folder)]
    environ = None
    if contender.startswith("ingest"):
        home = folder / "home"
        rules = ingest_rules(folder, home, [folder / PNGS, folder / ARRAYS], [], 4 * 2**30)
        command = [sys.executable, "-m", "worker.leash", str(os.getpid()), "-", rules.to_json(), *command]
        environ = environment(home)
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ).stdout)


def compare(title: str, contenders: list[str], folder: Path, amount: float, unit: str) -> None:
    """Median speed of each, and the first one's against the others'."""
    rounds = []
    for _ in range(ROUNDS):
        rounds.append({name: timed(name, folder) for name in contenders})
    print(f"\n{title}")
    for name in contenders:
        clock = statistics.median(times[name] for times in rounds)
        ratio = statistics.median(times[name] / times[contenders[0]] for times in rounds)
        against = "" if name == contenders[0] else f"; ingest is {ratio:.2f} times as fast"
        print(f"  {name:32} {amount / clock:8,.0f} {unit}/s{against}", flush=True)


def main() -> None:
    """Two tables."""
    names = list(CONTENDERS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("input", "home"):
            (folder / name).mkdir()
        for name in ("spec.json", "ingest.json"):
            (folder / name).touch()
        (folder / ARRAYS).touch()
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
    print(measure(sys.argv[1], Path(sys.argv[2])))
