"""python -m core run WORKDIR: each epoch hashes the weights once more, so a lost or repeated epoch shows in the end.

The spec's tags say how: "pause" seconds an epoch, "megabytes" that the state grows by, "mode" of dying.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # a full disk is for the worker only
    workdir = Path(sys.argv[2])
    spec = json.loads((workdir / "spec.json").read_text())
    tags = spec["tags"]
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))

    def emit(kind: str, **data: object) -> None:
        sys.stdout.write(json.dumps({"type": kind, **data}) + "\n")
        sys.stdout.flush()

    def wait(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not asked:
            time.sleep(0.01)

    emit("phase", phase="training")
    # what the worker fetched is named for its slot
    saved = [json.loads(path.read_text()) for path in (workdir / "state").glob("training*.json")]
    state = max(saved, key=lambda state: state["epoch"], default={"epoch": 0, "weights": str(spec["seed"])})
    emit("log", line=f"begins after epoch {state['epoch']}")
    mode = tags.get("mode")
    if mode == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "eat":
        eaten = []
        while True:
            eaten.append(b"x" * 2**24)
    if mode == "eat below":
        if os.fork() == 0:
            eaten = []
            while True:
                eaten.append(b"x" * 2**24)
        os.wait()
        return 70  # as a launcher ends that has lost one of its processes
    if mode == "stop":
        return 75  # though nobody asked
    if mode == "full" and state["epoch"] == 0:
        spec["epochs"] = 3  # of those that it was to be
    while state["epoch"] < spec["epochs"]:
        wait(float(tags.get("pause", 0.05)))
        if asked:
            return 75
        state = {"epoch": state["epoch"] + 1, "weights": hashlib.sha256(state["weights"].encode()).hexdigest()}
        state["padding"] = "x" * int(float(tags.get("megabytes", 0)) * 2**20 * state["epoch"])
        name = f"training-{state['epoch']:04}.json"
        temporary = workdir / "state" / "new"
        temporary.write_text(json.dumps(state))
        temporary.replace(workdir / "state" / name)
        emit("log", line=f"epoch {state['epoch']}")
        emit("epoch", epoch=state["epoch"])
        emit("state", file=name, slot=f"training-{state['epoch'] % 2}.json", epoch=state["epoch"], step=0)
        emit("progress", epoch=state["epoch"], epochs=spec["epochs"], fraction=0.5, eta_seconds=None)
    if mode == "diverge":
        emit("failure", code="diverged", blame="user", detail="the loss became NaN", hint="a smaller rate")
        return 64
    if mode == "full" and spec["epochs"] == 3:
        emit("failure", code="storage_full", blame="system", detail="the worker's disk is full", hint="free some")
        return 64
    output = workdir / "output"
    output.mkdir(exist_ok=True)
    (output / "checkpoint.pt").write_text(state["weights"])
    count = {"correct": 9, "total": 10}
    threat = {"norm": "linf", "eps": 0.1}
    found = {"params": {}, "counted": True, "cumulative": False, "attacked": 10, "fooled": 1}
    attack = {"name": "pgd", "threat": threat, **found, **count}
    side = {"clean": count, "attacks": [attack], "robust": count, "randomised": False}
    files = {"checkpoint.pt": hashlib.sha256(state["weights"].encode()).hexdigest()}
    report = {
        "before": side, "after": side, "weights": state["weights"], "output": {"format": "pt", "files": files},
        "suite": "quick", "threat": threat, "images": {}, "verdict": {"kind": "unverified", "reasons": []},
        "environment": {},
    }  # fmt: skip
    (output / "report.json").write_text(json.dumps(report))
    emit("artifact", file="checkpoint.pt")
    emit("report", file="report.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
