"""python -m benchmarks [pgd|service]: all, or one."""

from __future__ import annotations

import sys

from benchmarks import pgd, service

PARTS = {"pgd": pgd.main, "service": service.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
