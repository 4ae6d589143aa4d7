"""python -m benchmarks [attacks|memory|standard|training|service]: all, or one."""

from __future__ import annotations

import sys

from benchmarks import attacks, memory, service, standard, training

PARTS = {
    "attacks": attacks.main,
    "memory": memory.main,
    "standard": standard.main,
    "training": training.main,
    "service": service.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
