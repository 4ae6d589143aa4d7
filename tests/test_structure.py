"""What must never be in the code, and what every file must have."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "core", "ingest", "jobs", "migrations", "recipes", "temperd", "worker")
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def calls(tree: ast.AST, name: str):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text())
    for call in calls(tree, "torch.load"):
        assert path.is_relative_to(ROOT / "core"), "torch.load reads the engine's own files only"
        assert any(k.arg == "weights_only" and ast.literal_eval(k.value) is True for k in call.keywords)
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for call in calls(tree, "np.load"):
        assert any(k.arg == "allow_pickle" and ast.literal_eval(k.value) is False for k in call.keywords)
    for name in ("eval", "exec", "os.system"):
        assert not list(calls(tree, name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 450


def test_states_are_moved_in_one_place_only():
    """No ``job.state = ...`` outside the guarded UPDATE."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign):
                assert not any(
                    isinstance(t, ast.Attribute) and t.attr == "state" and ast.unparse(t) == "job.state"
                    for t in node.targets
                )


def test_the_example_is_small_and_the_lock_names_no_index():
    size = sum(path.stat().st_size for path in (ROOT / "examples" / "fashion_mnist").iterdir() if path.is_file())
    assert size < 5_000_000
    assert "://" not in (ROOT / "requirements.lock").read_text()
