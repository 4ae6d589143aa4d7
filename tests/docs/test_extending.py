"""The attack and the defense of docs/extending.md: put where the page says, they pass what every entry has to pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT, blocks

FILES = {block.marks["file"]: block.text for block in blocks(ROOT / "docs" / "extending.md") if "file" in block.marks}
PARTS = (
    "api",
    "core",
    "examples",
    "ingest",
    "jobs",
    "migrations",
    "recipes",
    "stack",
    "temperd",
    "tests",
    "web",
    "worker",
)
CONFORMANCE = ("test_attacks.py", "test_defenses.py", "test_spec.py")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The parts of a clone that matter, with the two files in it."""
    folder = tmp_path_factory.mktemp("clone")
    for part in (
        "api",
        "core",
        "examples",
        "ingest",
        "jobs",
        "migrations",
        "recipes",
        "stack",
        "temperd",
        "tests",
        "web",
        "worker",
    ):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, text in FILES.items():
        assert not (ROOT / path).exists(), "an example that is built in is none"
        (folder / path).write_text(text)
    return folder


@pytest.mark.long
def test_they_conform(clone):
    assert len(FILES) == 2
    tests = [f"tests/core/{name}" for name in CONFORMANCE]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", "mi-fgsm or alp"]
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) >= 10, done.stdout


def test_they_are_as_tidy_as_ours(clone):
    ruff = [sys.executable, "-m", "ruff"]
    for command in ([*ruff, "check"], [*ruff, "format", "--check"]):
        done = subprocess.run([*command, *FILES], cwd=clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
