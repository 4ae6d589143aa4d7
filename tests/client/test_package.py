"""The client is a distribution of its own: it needs little, and nothing of the service."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from temper.spec import assignment, build, put

ROOT = Path(__file__).parents[2]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]


def test_it_imports_what_it_declares_and_nothing_else():
    declared = {re.match(r"[a-z]+", requirement)[0] for requirement in CLIENT["dependencies"]}
    assert declared == {"cryptography", "httpx", "rich", "typer"}
    for path in (ROOT / "client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                if (top, path.name) == ("torch", "modules.py"):  # of who has a module
                    assert node.col_offset > 0, "torch is imported where it is used, never with the client"
                    continue
                assert top in declared | {"temper"} | sys.stdlib_module_names, f"{path} imports {top}"


def test_it_has_the_service_s_version():
    service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CLIENT["version"] == service["version"]
    assert (ROOT / "client" / "src" / "temper" / "py.typed").exists()


@pytest.mark.long
def test_it_installs_alone_and_without_torch(tmp_path):
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT / "client"], check=True)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    assert "temper-client" in listed
    assert not {"torch", "numpy", "fastapi", "sqlalchemy"} & set(listed.split())
    shown = subprocess.run([python.with_name("temper"), "--help"], capture_output=True, text=True, check=True).stdout
    assert "submit" in shown
    subprocess.run([python, "-c", "from temper import Client, AsyncClient"], check=True, cwd=tmp_path)


def test_specs():
    spec = build({"defense": {"steps": 5}, "tags": {"a": "b"}}, defense="aft", eps="8/255", epochs=3, norm=None)
    assert spec == {
        "defense": {"steps": 5, "name": "aft"},
        "tags": {"a": "b"},
        "threat": {"eps": "8/255"},
        "training": {"epochs": 3},
    }
    put(spec, "training.optimizer", "adam")
    put(spec, "training.optimizer.lr", 1e-4)
    assert spec["training"] == {"epochs": 3, "optimizer": {"name": "adam", "lr": 1e-4}}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("training.batch_size=64", ("training.batch_size", 64)),
        ("evaluation.diagnose=false", ("evaluation.diagnose", False)),
        ("threat.eps=8/255", ("threat.eps", "8/255")),
        ("model.mean=[0.5]", ("model.mean", [0.5])),
        ("model.mean=0.485, 0.5", ("model.mean", [0.485, 0.5])),
        ("name=a=b", ("name", "a=b")),
        ("training.ema=null", ("training.ema", None)),
    ],
)
def test_settings(text, meant):
    assert assignment(text) == meant


@pytest.mark.parametrize("text", ["training", "=1", "training.=1", ""])
def test_settings_that_are_none(text):
    with pytest.raises(ValueError, match="PLACE=VALUE"):
        assignment(text)
