"""python -m benchmarks [attacks|memory|standard|service]: all, or one."""

from __future__ import annotations

import sys

from benchmarks import attacks, memory, service, standard

PARTS = {"attacks": attacks.main, "memory": memory.main, "standard": standard.main, "service": service.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
