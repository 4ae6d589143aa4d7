"""make demo: a real classifier is attacked, hardened through the REST API, and attacked again.

Starts its own service on a free port, with its data in temper-data/demo, and stops it at the end. With TEMPER_URL set
it uses the service there instead, with the key in TEMPER_API_KEY, for example that of ``make stack``:
TEMPER_URL=http://127.0.0.1:8000 TEMPER_API_KEY=$(cat temper-stack/key) make demo
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
EXAMPLE = HERE / "fashion_mnist"
DATA_DIR = HERE.parent / "temper-data" / "demo"
FIELDS = {"architecture": "fmnist-cnn", "eps": "0.1", "epochs": "10"}
SPEC = {"name": "demo", "defense": {"name": "aft", "steps": 5}, "training": {"batch_size": 64}}
console = Console(highlight=False)


def main() -> None:
    """Serve, submit, watch, show, download, prove."""
    started = time.monotonic()
    console.print("[bold]Temper demo[/bold]: a Fashion-MNIST classifier under linf attacks with eps 0.1")
    key = os.environ.get("TEMPER_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with service() as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        console.print(f"service at {url}, API docs at {url}/docs")
        job = submit(client)
        watch(client, job)
        report = client.get(f"/jobs/{job}/report").raise_for_status().json()
        show(report)
        path = download(client, job, report)
    prove(path, report)
    console.print(f"done in {time.monotonic() - started:.0f} s; now your own model: see README.md")


@contextmanager
def service() -> Iterator[str]:
    """The address of one that runs, or temperd as a process of its own."""
    if url := os.environ.get("TEMPER_URL", "").rstrip("/"):
        try:
            httpx.get(f"{url}/healthz").raise_for_status()
        except httpx.HTTPError as error:
            sys.exit(f"no service answers at {url}: {error}")
        yield url
        return
    console.print("starting the service (it loads torch, a few seconds) ...")
    temperd = Path(sys.executable).with_name("temperd")
    command = [temperd, "serve", "--port", "0", "--data-dir", DATA_DIR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "listens on" not in line:
                sys.exit("the service did not start; its message is above")
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def submit(client: httpx.Client) -> str:
    """POST the example's two files."""
    checkpoint, data = EXAMPLE / "checkpoint.pt", EXAMPLE / "data.npz"
    console.print(f"POST /jobs  checkpoint={checkpoint.name} data={data.name} {FIELDS} spec={SPEC}")
    with checkpoint.open("rb") as weights, data.open("rb") as images:
        answer = client.post(
            "/jobs", data={**FIELDS, "spec": json.dumps(SPEC)}, files={"checkpoint": weights, "data": images}
        )
    if answer.is_error:
        sys.exit(f"refused: {answer.json()['detail']}")
    console.print(f"{answer.status_code} Accepted, Location: {answer.headers['location']}")
    return str(answer.json()["id"])


def watch(client: httpx.Client, job: str) -> None:
    """Show the live events until the job ends."""
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[eta]}"), console=console) as bar:
        task = bar.add_task("queued", total=1.0, eta="")
        for kind, event in events(client, job):
            if kind == "progress":
                eta = f"about {event['eta_seconds']:.0f} s left" if event["eta_seconds"] else ""
                bar.update(task, completed=event["fraction"], description=event["phase"] or event["state"], eta=eta)
            elif kind == "preview":
                data = event["data"]
                attacks = ", ".join(f"{a['name']} {a['accuracy']:.1%}" for a in data["attacks"])
                console.print(
                    f"{'preview':>12}: clean {data['clean']['accuracy']:.1%}, {attacks} "
                    f"({data['clean']['total']} images, {data['seconds']:.1f} s)"
                )
            elif kind == "result":
                attacks = ", ".join(f"{a['name']} {a['accuracy']:.1%}" for a in event["data"]["attacks"])
                data = event["data"]
                console.print(f"{data['side']:>12}: clean {data['clean']['accuracy']:.1%}, {attacks}")
            elif kind == "epoch":
                data = event["data"]
                console.print(
                    f"    epoch {data['epoch']:>2}: loss {data['train_loss']:.3f}, held-out clean "
                    f"{data['held_out_clean']:.1%}, under PGD-10 {data['held_out_robust']:.1%}"
                )
            elif kind == "failure":
                sys.exit(f"the job failed: {event['data']['detail']} ({event['data']['hint']})")


def events(client: httpx.Client, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The job's server-sent events as (type, data)."""
    with client.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        kind = ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                yield kind, json.loads(value)


def show(report: dict[str, Any]) -> None:
    """Before and after, with intervals."""
    before, after = report["before"], report["after"]
    table = Table(title=f"{report['images']['count']} test images, worst case over suite {report['suite']!r}")
    for title in ("accuracy", "before", "after"):
        table.add_column(title)
    table.add_row("clean", count(before["clean"]), count(after["clean"]))
    for was, now in zip(before["attacks"], after["attacks"], strict=True):
        steps = f"-{was['params']['steps']}" if "steps" in was["params"] else ""
        table.add_row(f"under {was['name']}{steps}", count(was), count(now))
    table.add_row("robust", count(before["robust"]), count(after["robust"]), style="bold")
    console.print(table)
    change, cost = report["change"]["robust"], report["cost"]
    console.print(f"robust accuracy {100 * change['delta']:+.1f} points, McNemar p = {change['p_value']:.1e}")
    console.print(f"verdict: [bold]{report['verdict']['kind']}[/bold], {report['verdict']['reasons'][0]}")
    for side in ("before", "after"):
        raised = [sign["code"] for sign in report["diagnostics"] if sign["side"] == side]
        checks = len(report[side]["diagnosis"])
        console.print(f"is it real? {side}: {checks} checks, raised: {', '.join(raised) or 'none'}")
    console.print(f"cost: {cost['total_fb']:,} forward-backward passes in {cost['total_seconds']:.0f} s")


def count(value: dict[str, Any]) -> str:
    """A share with its interval."""
    low, high = value["ci95"]
    return f"{value['accuracy']:.1%} [{low:.1%}, {high:.1%}]"


def download(client: httpx.Client, job: str, report: dict[str, Any]) -> Path:
    """Save the hardened checkpoint beside the service's data."""
    path = DATA_DIR / "hardened.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(client.get(f"/jobs/{job}/checkpoint").raise_for_status().content)
    console.print(f"hardened checkpoint: {path.relative_to(HERE.parent)}")
    console.print(f"SHA-256 {report['output']['sha256']}")
    return path


def prove(path: Path, report: dict[str, Any]) -> None:
    """Load the file into the user's own class, in plain torch, and count again."""
    sys.path.insert(0, str(EXAMPLE))
    import numpy as np
    import torch
    from model import Net

    net = Net().eval()
    net.load_state_dict(torch.load(path, weights_only=True), strict=True)
    data = np.load(EXAMPLE / "data.npz")
    with torch.no_grad():
        predicted = net(torch.from_numpy(data["x_test"])[:, None] / 255).argmax(1).numpy()
    correct = int((predicted == data["y_test"]).sum())
    expected = report["after"]["clean"]["correct"]
    console.print(
        f"plain torch, strict=True: {correct} of {len(predicted)} test images correct; the report says {expected}"
    )
    if abs(correct - expected) > 2:  # another memory layout may round a tie the other way
        sys.exit("that is not what the report says")


if __name__ == "__main__":
    main()
