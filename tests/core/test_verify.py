"""python -m core verify: the same attacks again, and an answer that can be no."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet, table

from core.certificate import CertifiedCount
from core.verify import main
from core.verify_compare import likelihood
from temper import certificate as client
from tests.certified import certify
from tests.core.workdirs import small_data

SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 1},
    "threat": {"eps": 0.03},
    "training": {"epochs": 1, "batch_size": 50, "held_out": 10},
    "evaluation": {"samples": 60, "diagnose": False},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory, arrays, example):
    folder = tmp_path_factory.mktemp("job")
    data = small_data(folder / "data.npz", arrays, 110, 80)
    return certify(folder, SPEC, example / "checkpoint.pt", data)


@pytest.fixture
def verify(capsys):
    def verify(*arguments):
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return verify


def retold(job, folder, change):
    """The certificate with another predicate, beside no per-image results; whoever forges it needs a key for it."""
    envelope = json.loads(job.certificate.read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement["predicate"])
    path = folder / "certificate.json"
    path.write_bytes(job.signer.envelope(json.dumps(statement).encode(), "application/vnd.in-toto+json"))
    return path


def test_the_hardened_model_agrees_in_either_format(job, verify):
    for name in ("checkpoint.pt", "checkpoint.safetensors"):
        status, said = verify(job.certificate, job.folder / name, job.data, "--sample", 30)
        assert status == 0, said
        assert "is the after side of job_1; 30 of 60 images" in said
        assert said.count("0 of 30 images differ") == 4, "on the same device, to the image"
        assert "images.parquet: its counts are those that are certified" in said


def test_the_uploaded_model_and_a_work_folder_agree(job, verify):
    status, said = verify(job.certificate, job.checkpoint, job.data)
    assert (status, "is the before side" in said) == (0, True), said
    status, said = verify(job.certificate, job.workdir.root)
    assert (status, "is the after side" in said) == (0, True), said


def test_without_per_image_results_counts_are_compared(job, tmp_path, verify):
    path = shutil.copy(job.certificate, tmp_path)
    for sample in (60, 25):
        status, said = verify(path, job.folder / "checkpoint.pt", job.data, "--sample", sample)
        assert (status, said.count("(p = ")) == (0, 4), said


def test_exaggerated_counts_do_not_agree(job, tmp_path, verify):
    def exaggerate(predicate):
        predicate["after"]["attacks"][1]["correct"] = 58

    path = retold(job, tmp_path, exaggerate)
    status, said = verify(path, job.folder / "checkpoint.pt", job.data, "--sample", 40)
    assert status == 1
    assert "DISAGREES  pgd (linf eps 0.03): " in said
    status, said = verify(path, job.folder / "checkpoint.pt", job.data, "--results", job.folder / "images.parquet")
    assert "DISAGREES  images.parquet: pgd (linf eps 0.03) has " in said
    assert status == 1


def test_invented_images_do_not_agree(job, tmp_path, verify):
    """Results that hide what fell: the attacks find it again."""
    columns = parquet.read_table(job.folder / "images.parquet").to_pydict()
    columns = {k: [False] * 60 if k.endswith("_fooled") else values for k, values in columns.items()}
    parquet.write_table(table(columns), tmp_path / "images.parquet")

    def hide(predicate):
        predicate["outputs"]["images.parquet"] = client.file_sha256(tmp_path / "images.parquet")
        for attack in (*predicate["after"]["attacks"], predicate["after"]["robust"]):
            attack["correct"] = predicate["after"]["clean"]["correct"]

    status, said = verify(retold(job, tmp_path, hide), job.folder / "checkpoint.pt", job.data)
    assert status == 1, said
    assert "agrees     clean: " in said
    assert "DISAGREES  fgsm" in said
    assert "agrees     images.parquet" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["images"].update(ids_sha256="0" * 64), "other test images"),
        (lambda p: p["inputs"]["data"].update(sha256="0" * 64), "the certificate binds " + "0" * 64),
        (lambda p: p["after"]["attacks"][0]["params"].update(unheard=1), "another form of an attack"),
        (lambda p: p["outputs"].clear(), "neither the hardened nor the uploaded"),
        (lambda p: p.pop("spec"), "no certificate that can be read"),
    ],
)
def test_what_cannot_be_compared_is_said(job, tmp_path, verify, change, words):
    status, said = verify(retold(job, tmp_path, change), job.folder / "checkpoint.pt", job.data)
    assert status == 2
    assert words in said


def test_other_files_are_refused(job, tmp_path, verify):
    other = tmp_path / "checkpoint.pt"
    torch.save({"a": torch.zeros(1)}, other)
    assert verify(job.certificate, other, job.data)[0] == 2
    np.savez(tmp_path / "data.npz", x=np.zeros(1))
    status, said = verify(job.certificate, job.folder / "checkpoint.pt", tmp_path / "data.npz")
    assert (status, "give the job's data" in said) == (2, True)
    shutil.copy(job.folder / "model-card.md", tmp_path / "images.parquet")
    status, said = verify(job.certificate, job.workdir.root, "--results", tmp_path / "images.parquet")
    assert (status, "not the images.parquet that the certificate binds" in said) == (2, True)
    assert verify(job.certificate, job.folder / "checkpoint.pt")[0] == 2
    assert verify(tmp_path / "none.json", job.workdir.root)[0] == 2


def test_a_sample_is_judged_by_its_exact_chance():
    certified = CertifiedCount(correct=50, total=100)
    assert likelihood(50, 100, certified, 0) == 1
    assert likelihood(49, 100, certified, 0) == 0
    assert likelihood(49, 100, certified, 0.01) == 1
    assert likelihood(47, 100, certified, 0.02) == 0
    assert likelihood(0, 1, certified, 0) == likelihood(1, 1, certified, 0) == 0.5
    # 2 of 2, from 50 of 100: 50/100 * 49/99
    assert likelihood(2, 2, certified, 0) == pytest.approx(50 / 100 * 49 / 99)


@pytest.mark.long
def test_the_example_end_to_end(tmp_path, example):
    """The whole example under suite standard, checked by the command as a user runs it."""
    spec = {**SPEC, "evaluation": {"suite": "standard", "samples": 100, "diagnose": False}}
    job = certify(tmp_path, spec, example / "checkpoint.pt", example / "data.npz")
    command = [sys.executable, "-m", "core", "verify", job.certificate, job.folder / "checkpoint.pt", job.data]
    done = subprocess.run([*command, "--sample", "50"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees  ") == 7
