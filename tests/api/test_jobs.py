"""The main path over HTTP, on a real uvicorn."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load as load_safetensors

from core.report import Report
from core.spec import JobSpec
from tests.api.conftest import SPEC
from tests.service import alive, children


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed; the same form goes through httpx below"
)
def test_a_one_line_curl_works(service, example, data):
    command = [
        "curl", "-s", "-i", "-F", f"checkpoint=@{example / 'checkpoint.pt'}", "-F", f"data=@{data}",
        "-F", "architecture=fmnist-cnn", "-F", "defense=aft", "-F", "eps=8/255", "-F", "norm=linf", "-F", "epochs=1",
        f"{service.client.base_url}/jobs",
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    head, _, body = answer.replace("\r\n", "\n").rpartition("\n\n")
    assert "202 Accepted" in head
    job = service.client.get("/jobs").json()["items"][0]["id"]
    assert f"location: /jobs/{job}" in head.lower()
    spec = service.job(job)["spec"]
    assert spec["threat"] == {"norm": "linf", "eps": 8 / 255}
    assert spec["training"]["epochs"] == 1
    assert job in body
    service.client.post(f"/jobs/{job}/cancel")
    assert service.wait(job)["state"] == "cancelled"


def test_a_finished_job(service, done):
    job = service.job(done)
    assert (job["name"], job["tags"], job["state"], job["attempt"]) == ("small", {"team": "vision"}, "succeeded", 1)
    assert job["progress"] == {"epoch": 2, "epochs": 2, "fraction": 1.0, "eta_seconds": 0.0}
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["created_at"].endswith("Z")
    assert JobSpec.model_validate(job["spec"]) == JobSpec.model_validate(SPEC)
    assert all(service.client.get(link).status_code in (200, 405) for link in job["links"].values())


def test_lists_tell_what_came_out(service, done):
    report = service.client.get(f"/jobs/{done}/report").json()
    head = {side: {name: report[side][name] for name in ("clean", "robust")} for side in ("before", "after")}
    [listed] = [job for job in service.client.get("/jobs?limit=200").json()["items"] if job["id"] == done]
    assert listed["outcome"] == service.job(done)["outcome"] == {"verdict": report["verdict"]["kind"], **head}


def test_the_report(service, done, example, data):
    report = Report.model_validate(service.client.get(f"/jobs/{done}/report").raise_for_status().json())
    assert report.before.robust.correct <= report.before.clean.correct
    assert report.after is not None
    assert report.inputs["checkpoint"]["sha256"] == hashlib.sha256((example / "checkpoint.pt").read_bytes()).hexdigest()
    assert report.inputs["data"]["source"]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()


def test_the_checkpoint_loads_into_the_users_class(service, done, example, monkeypatch):
    monkeypatch.syspath_prepend(example)
    from model import Net

    report = service.client.get(f"/jobs/{done}/report").json()
    answer = service.client.get(f"/jobs/{done}/checkpoint")
    sha256 = hashlib.sha256(answer.content).hexdigest()
    assert sha256 == report["output"]["sha256"]
    assert answer.headers["etag"] == f'"{sha256}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    assert int(answer.headers["content-length"]) == len(answer.content)
    state = torch.load(io.BytesIO(answer.content), weights_only=True)
    Net().load_state_dict(state, strict=True)
    other = service.client.get(f"/jobs/{done}/checkpoint", params={"format": "safetensors"})
    assert other.headers["etag"] != answer.headers["etag"]
    converted = load_safetensors(other.content)
    assert all(torch.equal(converted[key], state[key]) for key in state)


def test_a_broken_download_resumes(service, done):
    url = f"/jobs/{done}/checkpoint"
    whole = service.client.get(url)
    etag = whole.headers["etag"]
    size = len(whole.content)

    def part(value, **headers):
        return service.client.get(url, headers={"Range": value, **headers})

    rest = part("bytes=1000-", **{"If-Range": etag})
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes 1000-{size - 1}/{size}"
    assert whole.content[:1000] + rest.content == whole.content
    assert part("bytes=0-0").content == whole.content[:1]
    assert part("bytes=-7").content == whole.content[-7:]
    assert part(f"bytes=5-{size + 99}").content == whole.content[5:]
    assert part("bytes=9-5").status_code == part("bytes=-").status_code == 200, "an invalid range is ignored"
    assert part("bytes=0-" + "9" * 5000).status_code == 200
    assert part("BYTES=0-3").content == whole.content[:4]
    unsatisfiable = part(f"bytes={size}-")
    assert unsatisfiable.status_code == 416
    assert unsatisfiable.headers["content-range"] == f"bytes */{size}"
    assert part("bytes=5-9", **{"If-Range": '"changed"'}).content == whole.content
    assert part("lines=1-2").status_code == 200
    assert service.client.get(url, headers={"If-None-Match": f'"x", {etag}'}).status_code == 304
    assert service.client.get(url, headers={"If-None-Match": "*"}).status_code == 304
    assert service.client.head(url, headers={"Range": "bytes=0-3"}).status_code == 200
    head = service.client.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_artifacts_are_listed_and_downloaded(service, done):
    items = service.client.get(f"/jobs/{done}/artifacts").json()["items"]
    assert [item["name"] for item in items] == [
        "certificate.json",
        "checkpoint.pt",
        "checkpoint.safetensors",
        "curves.svg",
        "embedding.json",
        "embedding.svg",
        "examples.json",
        "images.parquet",
        "model-card.md",
    ]
    images = items[-2]
    answer = service.client.get(images["href"])
    assert hashlib.sha256(answer.content).hexdigest() == images["sha256"]
    assert len(answer.content) == images["size"]
    table = parquet.read_table(io.BytesIO(answer.content))
    report = service.client.get(f"/jobs/{done}/report").json()
    assert table.num_rows == report["images"]["count"]
    assert sum(table["after_robust"].to_pylist()) == report["after"]["robust"]["correct"]
    part = service.client.get(images["href"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PAR1")
    missing = service.client.get(f"/jobs/{done}/artifacts/weights.exe")
    assert missing.status_code == 404
    assert "images.parquet" in missing.json()["detail"]
    assert service.client.get("/jobs/job_0/artifacts").status_code == 404


def test_a_preview_comes_before_training(service, done):
    items = service.client.get(f"/jobs/{done}/events", params={"limit": 1000}).json()["items"]
    kinds = [item["data"].get("phase", item["type"]) for item in items]
    assert kinds.index("baseline") < kinds.index("preview") < kinds.index("training")


def test_events_as_pages_and_as_a_stream(service, done):
    url = f"/jobs/{done}/events"
    everything = service.client.get(url, params={"limit": 1000}).json()
    assert everything["next"] is None
    types = [item["type"] for item in everything["items"]]
    assert types.count("epoch") == 2
    assert types.count("result") == 2
    assert types[0] == types[-1] == "state"
    pages, after = [], 0
    while after is not None:
        page = service.client.get(url, params={"limit": 3, "after": after}).json()
        pages += page["items"]
        after = page["next"]
    assert pages == everything["items"]
    streamed = [event for event in service.events(done) if "id" in event]
    assert [event["data"] for event in streamed] == everything["items"]
    middle = everything["items"][4]["id"]
    resumed = [event for event in service.events(done, last_event_id=middle) if "id" in event]
    assert [event["data"] for event in resumed] == everything["items"][5:]


def test_live_progress_202_cancel_409_delete(service, example, data, tmp_path):
    """One running job: watched, reported as not done, cancelled (its process dead), deleted."""
    spec = {**SPEC, "training": {**SPEC["training"], "epochs": 500}}
    with np.load(data) as arrays:  # no other job of this service has the same bytes
        np.savez(tmp_path / "own.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    data = tmp_path / "own.npz"
    job = service.submit(example / "checkpoint.pt", data, spec)
    waiting = service.submit(example / "checkpoint.pt", data, spec)
    assert service.job(waiting)["queue_position"] == 1
    fractions = []
    for event in service.events(job):
        if event["event"] == "progress":
            fractions.append(event["data"]["fraction"])
        if event["event"] == "epoch" and event["data"]["data"]["epoch"] == 2:
            break
    assert len(fractions) >= 2
    assert fractions == sorted(fractions)
    running = service.job(job)
    assert (running["state"], running["phase"]) == ("running", "training")
    early = service.client.get(f"/jobs/{job}/report")
    assert (early.status_code, early.headers["retry-after"]) == (202, "5")
    assert service.client.get(f"/jobs/{job}/checkpoint").json()["code"] == "artifact_not_found"
    refused = service.client.delete(f"/jobs/{job}")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    pid = children(service.process.pid)[0]
    assert service.client.post(f"/jobs/{waiting}/cancel").status_code == 200
    assert service.client.post(f"/jobs/{job}/cancel").status_code == 202
    assert service.wait(job)["state"] == "cancelled"
    assert not alive(pid), "cancelled is true only when the process is dead"
    assert service.client.post(f"/jobs/{job}/cancel").status_code == 200
    gone = service.client.get(f"/jobs/{job}/report")
    assert (gone.status_code, gone.json()["code"]) == (409, "job_cancelled")
    freed = []
    for each in (job, waiting):
        freed.append(service.client.delete(f"/jobs/{each}").json()["freed_bytes"])
        assert service.client.get(f"/jobs/{each}").status_code == 404
    assert freed[0] == 0, "the same bytes are stored once, and the other job needs them"
    shared = (example / "checkpoint.pt").stat().st_size
    assert freed[1] in (data.stat().st_size, data.stat().st_size + shared)
    store = service.data_dir / "store"
    # a state whose transfer the cancel broke off may have come to its end: the sweep takes that
    left = [path for path in store.glob(f"jobs/{job}/**/*.*") if "state" not in path.parts]
    assert left == [], "delete frees the bytes"


def test_files_that_are_there_already_are_used_again(service, done):
    """POST as JSON: the same upload with another defense, and a hardened result evaluated again."""
    first = service.job(done)
    spec = {**SPEC, "defense": "none", "training": None}
    again = service.client.post("/jobs", json={**spec, "checkpoint": first["checkpoint"], "data": first["data"]})
    assert again.status_code == 202
    hardened = service.client.post("/jobs", json={**spec, "checkpoint": {"job": done}, "data": first["data"]})
    assert hardened.status_code == 202
    report = service.client.get(f"/jobs/{done}/report").json()
    for answer, side in ((again, "before"), (hardened, "after")):
        job = answer.json()["id"]
        assert service.wait(job)["state"] == "succeeded"
        found = service.client.get(f"/jobs/{job}/report").json()
        assert found["before"] == report[side]
        assert found["after"] is None
        assert service.client.get(f"/jobs/{job}/checkpoint").status_code == 404


def test_lists_and_filters(service, done):
    page = service.client.get("/jobs", params={"limit": 1}).json()
    assert len(page["items"]) == 1
    following = service.client.get("/jobs", params={"limit": 200, "cursor": page["next"]}).json()
    everything = service.client.get("/jobs", params={"limit": 200}).json()
    assert page["items"] + following["items"] == everything["items"]
    assert following["next"] is None
    found = service.client.get("/jobs", params={"state": "succeeded", "defense": "aft"}).json()["items"]
    assert done in [job["id"] for job in found]
    assert service.client.get("/jobs", params={"defense": "dra"}).json()["items"] == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_surroundings(service, path):
    assert service.client.get(path).status_code == 200


def test_a_dataset_by_name(service, example, data):
    """What `temperd datasets fetch` leaves in the data folder is used by name; what is not there is said."""
    folder = service.data_dir / "datasets"
    folder.mkdir(exist_ok=True)
    (folder / "small-set.npz").write_bytes(data.read_bytes())
    spec = {**SPEC, "defense": "none", "training": None, "data": {"dataset": "small-set"}}
    files = {"checkpoint": (example / "checkpoint.pt").read_bytes()}
    job = service.client.post("/jobs", data={"spec": json.dumps(spec)}, files=files).json()["id"]
    assert service.wait(job)["state"] == "succeeded"
    assert service.job(job)["data"] == {"dataset": "small-set"}
    missing = {**spec, "data": {"dataset": "mnist"}}
    job = service.client.post("/jobs", data={"spec": json.dumps(missing)}, files=files).json()["id"]
    failure = service.wait(job)["failure"]
    assert (failure["code"], failure["hint"]) == ("dataset_missing", "temperd datasets fetch mnist")
