"""What must never be in the code, and what every file must have."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "client", "core", "ingest", "jobs", "migrations", "recipes", "temperd", "worker")
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def calls(tree: ast.AST, name: str):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


# what loads code, runs it, or writes where an archive says
_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "imp"}
_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.package.PackageImporter"}
_LOADERS = {"torch.jit.load", "torch.export.load", "torch.hub.load", "torch.serialization.load"}
_METHODS = {"extractall", "extract", "unpack_archive", "unsafe_load", "full_load", "load_all"}
_UNDER_CONDITIONS = {  # call -> the keyword that it must have, and its value
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
}


def _forbidden(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in _MODULES]
        elif isinstance(node, ast.ImportFrom):
            # torch.load under another name would pass by the checks below
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [node.module] * (node.module in _MODULES)
            found += sorted(
                names & (_LOADERS | set(_UNDER_CONDITIONS) | {"os.system", "os.popen", "shutil.unpack_archive"})
            )
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in _CALLS | _LOADERS or name.rpartition(".")[2] in _METHODS:
                found.append(name)
            if name in ("yaml.load", "yaml.unsafe_load"):
                found.append(name)
            if name in _UNDER_CONDITIONS:
                keyword, value = _UNDER_CONDITIONS[name]
                given = {k.arg: k.value for k in node.keywords}
                if keyword not in given or ast.unparse(given[keyword]) != str(value):
                    found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path):
    tree = ast.parse(path.read_text())
    assert _forbidden(tree) == []
    if any(calls(tree, "torch.load")):
        assert path.is_relative_to(ROOT / "core"), "torch.load reads the engine's own files only"


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "from torch import load",
        "torch.jit.load(path)",
        "torch.export.load(path)",
        "import pickle",
        "from pickle import loads",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(target)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
    ],
)
def test_the_test_knows_what_is_forbidden(line):
    assert _forbidden(ast.parse(line)) != []


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
