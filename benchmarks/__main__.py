"""python -m benchmarks [attacks|memory|standard|training|service|team]: all, or one."""

from __future__ import annotations

import sys

from benchmarks import attacks, memory, service, standard, team, training

PARTS = {
    "attacks": attacks.main,
    "memory": memory.main,
    "standard": standard.main,
    "training": training.main,
    "service": service.main,
    "team": team.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
