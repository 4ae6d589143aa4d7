"""The least report that can be stored."""

from __future__ import annotations

from jobs.storage import Stored

REPORT = {
    side: {
        "clean": {"correct": 9, "total": 10},
        "attacks": [{"name": "pgd", "threat": {"norm": "linf", "eps": 0.1}, "correct": 5, "total": 10}],
        "robust": {"correct": 5, "total": 10},
    }
    for side in ("before", "after")
}
FILE = Stored("jobs/x/1/checkpoint.pt", "2" * 64, 30)
