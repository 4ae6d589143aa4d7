"""Peak memory of single attacks, each contender in a process of its own: what it adds to the network's own pass.

``python -m benchmarks.memory CONTENDER ATTACK`` measures one and prints megabytes.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.attacks import BATCH, OURS, ours, peers
from benchmarks.models import fashion_mnist

COUNT = 500
OWN, OWN_BATCH = "temper-at-its-own-batch", 128  # what an evaluation takes on a CPU
ATTACKS = ("PGD-10", "APGD-CE, 50 steps", "Square, 500 queries")


def added(contender: str, attack: str) -> float:
    """Megabytes by which the peak grows over that of loading everything and one forward pass of a batch."""
    warnings.simplefilter("ignore")
    subject = fashion_mnist()[1]
    craft = ours(OURS[attack], subject) if contender in ("temper", OWN) else peers(attack, subject)[contender]
    x, y, ids = subject.x[:COUNT], subject.y[:COUNT], torch.arange(COUNT)
    with torch.no_grad():
        subject.network()(x[:BATCH])
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    size = OWN_BATCH if contender == OWN else BATCH
    for part in zip(x.split(size), y.split(size), ids.split(size), strict=True):
        craft(*part, 0)
    return _status("VmHWM") - before


def _status(field: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024


def main() -> None:
    """One table."""
    print("\npeak memory over the idle process, hardened Fashion-MNIST, batches of 250")
    for attack in ATTACKS:
        cells = []
        for contender in (OWN, "temper", *peers(attack, fashion_mnist()[0])):
            command = [sys.executable, "-m", "benchmarks.memory", contender, attack]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            cells.append(f"{contender} {float(answer.stdout.split()[-1]):.0f} MB")
        print(f"  {attack:20} {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    print(added(sys.argv[1], sys.argv[2]))
