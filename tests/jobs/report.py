"""The least report that can be stored."""

from __future__ import annotations

from jobs.storage import Stored

_SIDE = {
    "clean": {"correct": 9, "total": 10, "accuracy": 0.9, "ci95": [0.6, 0.98]},
    "attacks": [{"name": "pgd", "threat": {"norm": "linf", "eps": 0.1}, "correct": 5, "total": 10}],
    "robust": {"correct": 5, "total": 10, "accuracy": 0.5, "ci95": [0.24, 0.76]},
}
REPORT = {"verdict": {"kind": "unverified", "reasons": []}, "before": _SIDE, "after": _SIDE}
FILE = Stored("jobs/x/1/checkpoint.pt", "2" * 64, 30)
