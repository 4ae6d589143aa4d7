"""Every job that succeeds has a certificate that holds, and anybody can get the keys to check it with."""

from __future__ import annotations

import hashlib

import pytest

from core.verify import main as verify_again
from jobs.signing import Signer
from temper import certificate as client


@pytest.fixture(scope="module")
def artifacts(service, done, tmp_path_factory):
    """All that the job made, downloaded."""
    folder = tmp_path_factory.mktemp("artifacts")
    for item in service.client.get(f"/jobs/{done}/artifacts").json()["items"]:
        (folder / item["name"]).write_bytes(service.client.get(item["href"]).content)
    return folder


@pytest.fixture(scope="module")
def public_keys(service):
    return [item["public_key"] for item in service.client.get("/signing-keys").json()["items"]]


def test_it_holds_for_what_is_downloaded(service, done, artifacts, public_keys, data, example):
    others = [path for path in artifacts.iterdir() if path.name != "certificate.json"]
    assert {"images.parquet", "model-card.md", "curves.svg"} <= {path.name for path in others}
    for kind in ("pt", "safetensors"):
        model = artifacts / f"converted.{kind}"
        model.write_bytes(service.client.get(f"/jobs/{done}/checkpoint", params={"format": kind}).content)
        found = client.verify(
            artifacts / "certificate.json",
            model,
            public_keys,
            data=data,
            uploaded=example / "checkpoint.pt",
            others=others,
        )
        assert [finding.sentence for finding in found if not finding.ok] == []
        assert len(found) == 4 + len(others)


def test_it_says_what_the_report_says(service, done, artifacts, public_keys):
    content = (artifacts / "certificate.json").read_bytes()
    statement, signer = client.read(content, {client.key_id(pem): pem for pem in public_keys})
    said, report = statement["predicate"], service.client.get(f"/jobs/{done}/report").json()
    for side in ("before", "after"):
        assert said[side]["robust"]["correct"] == report[side]["robust"]["correct"]
        for ours, attack in zip(said[side]["attacks"], report[side]["attacks"], strict=True):
            assert ours.items() <= attack.items()
            assert {"name", "params", "threat", "correct", "total"} <= ours.keys()
    assert (said["job"], said["seed"], said["evaluated"]) == (done, 0, "checkpoint.pt")
    assert said["spec"] == service.client.get(f"/jobs/{done}").json()["spec"]
    assert said["images"] == report["images"]
    assert said["versions"]["engine"]["torch"] == report["environment"]["torch"]
    assert {each["name"] for each in statement["subject"]} == {"checkpoint.pt", "checkpoint.safetensors"}
    (item,) = service.client.get("/signing-keys").json()["items"]
    assert (item["id"], item["algorithm"], item["revoked_at"]) == (signer, "ed25519", None)


def test_its_attacks_can_be_run_again(artifacts, data, capsys):
    arguments = [artifacts / "certificate.json", artifacts / "checkpoint.pt", data, "--sample", "20"]
    assert verify_again([str(each) for each in arguments]) == 0, capsys.readouterr().err
    assert "0 of 20 images differ" in capsys.readouterr().out


def test_the_private_key_lies_in_the_data_folder_and_is_nobody_elses(service, public_keys):
    path = service.data_dir / "signing-key"
    assert path.stat().st_mode & 0o777 == 0o600
    signer = Signer.parse(path.read_text())
    assert [signer.public_pem] == public_keys


def test_the_model_card_is_an_artifact(service, done, artifacts):
    card = (artifacts / "model-card.md").read_bytes()
    report = service.client.get(f"/jobs/{done}/report").json()
    assert report["output"]["sha256"].encode() in card
    items = service.client.get(f"/jobs/{done}/artifacts").json()["items"]
    listed = {item["name"]: item["sha256"] for item in items}
    assert hashlib.sha256(card).hexdigest() == listed["model-card.md"]


def test_strangers_get_the_public_keys(stranger):
    assert stranger.get("/signing-keys").status_code == 200
    assert stranger.get("/jobs").status_code == 401
