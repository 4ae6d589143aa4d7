"""python -m benchmarks [attacks|bulk|ingest|memory|pages|standard|training|service|uploads|team]: all, or one."""

from __future__ import annotations

import sys

from benchmarks import attacks, bulk, ingest, memory, pages, service, standard, team, training, uploads

PARTS = {
    "attacks": attacks.main,
    "bulk": bulk.main,
    "ingest": ingest.main,
    "memory": memory.main,
    "pages": pages.main,
    "standard": standard.main,
    "training": training.main,
    "service": service.main,
    "uploads": uploads.main,
    "team": team.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
