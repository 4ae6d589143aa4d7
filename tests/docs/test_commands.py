"""Every command of the documentation runs: as it stands, page by page, against a real service, on fewer images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm import create_model

from tests.core.workdirs import small_data
from tests.docs.pages import COMMANDS, OTHERS, PAGES, ROOT, blocks, name
from tests.service import Service

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]
REASONS = {"needs Docker", "needs Kubernetes", "needs a team's Postgres"}
_ID = re.compile(r"\b(?:job|up|key)_[0-9a-f]{20}\b")
_KEY = re.compile(r'"(\w+)":|^(?!job_)([\w-]+):', re.MULTILINE)


class Shell:
    """A reader's shell, in a folder with a clone's files: what one block assigns the next one knows."""

    def __init__(self, folder: Path, environment: dict[str, str], host: str) -> None:
        self._folder, self._environment, self._host = folder, environment, host
        self._state = folder / ".state"
        self._state.touch()
        self._ids: dict[str, str] = {}

    def run(self, command: str, shown: str = "") -> None:
        """Run it, and find the names that the page shows in what it prints."""
        for theirs, ours in self._ids.items():
            command = command.replace(theirs, ours)
        script = f"source {self._state}\nset -a\n{self._here(command)}\nexport -p > {self._state}"
        printed = self._call(["bash", "-e", "-c", script], command)
        rest = iter(_KEY.findall(printed))
        assert all(key in rest for key in _KEY.findall(shown)), f"{command}\nprinted\n{printed}"
        self._ids |= dict(zip(_ID.findall(shown), _ID.findall(printed), strict=False))

    def python(self, code: str) -> None:
        self._call([sys.executable, "-W", "error", "-c", self._here(code)], code)

    def write(self, path: str, text: str) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _here(self, text: str) -> str:
        return re.sub(r"(localhost|127\.0\.0\.1):8000", self._host, text)

    def _call(self, command: list[str], shown: str) -> str:
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shown}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def shell(service, tmp_path, example, arrays):
    """In a folder with what a clone has, but with few images, and with files of the reader's own."""
    files = tmp_path / "examples" / "fashion_mnist"
    files.mkdir(parents=True)
    (files / "checkpoint.pt").write_bytes((example / "checkpoint.pt").read_bytes())
    small_data(files / "data.npz", arrays, train=80, test=20)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    _files_of_the_reader(tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    environment["TEMPER_URL"] = str(service.client.base_url)
    yield Shell(tmp_path, environment, service.client.base_url.netloc.decode())
    for job in service.client.get("/jobs").json()["items"]:
        service.client.post(f"/jobs/{job['id']}/cancel")


def _files_of_the_reader(folder: Path) -> None:
    torch.manual_seed(0)
    _trained_as_mine(folder / "mine.pt")
    save_file(create_model("resnet18", num_classes=2).state_dict(), folder / "model.safetensors")
    images = folder / "images"
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (images / place).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (260, 260, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / place / f"{number}.png")
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-c", folder / "images.zip", "train", "test"], cwd=images, check=True
    )


def _trained_as_mine(path: Path) -> None:
    """The example's weights by the names of docs/checkpoints.md's module."""
    layers = ("first", "second", "third", "hidden", "out")
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    trained = torch.load(ROOT / "examples" / "fashion_mnist" / "checkpoint.pt", weights_only=True)
    torch.save(dict(zip(names, trained.values(), strict=True)), path)


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_commands_of_a_page_run(page, shell):
    for block in blocks(page):
        if "file" in block.marks:
            shell.write(block.marks["file"], block.text)
        if not block.runs:
            continue
        if block.language == "python":
            shell.python(f"{block.marks.get('given', '')}\n{block.text}")
        else:
            for command, output in block.commands():
                shell.run(command, output)


def test_every_block_says_what_it_is():
    assert len(BLOCKS) > 30
    for block in BLOCKS:
        assert block.language in (*COMMANDS, *OTHERS), f"{name(block.page)}:{block.line}: a block without a language"


def test_what_is_not_run_here_is_run_by_another_test_or_cannot_be():
    for block in BLOCKS:
        if "run by" in block.marks:
            path, _, test = block.marks["run by"].partition("::")
            assert test in (ROOT / path).read_text(), f"{name(block.page)}:{block.line}"
        assert block.marks.get("not run", "needs Docker") in REASONS, f"{name(block.page)}:{block.line}"


def test_make_has_every_target_that_is_named():
    named = {
        target
        for block in BLOCKS
        if block.language in COMMANDS
        for target in re.findall(r"\bmake (\w[\w-]*)", block.text)
    }
    assert {"serve", "demo", "stack"} <= named
    subprocess.run(["make", "--dry-run", *named], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
